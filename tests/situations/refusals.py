"""Every sentence with which a situation may be refused, and when: anything else that raises is a fault."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs
import torch
from tests.situations.situation import Situation


@attrs.frozen
class Refusal:
    """A ``sentence`` (a regular expression) that is said only ``when`` a situation is of its kind."""

    sentence: str
    when: Callable[[Situation], bool]


def evicts(situation: Situation) -> bool:
    """Whether the cache is one that evicts, be it by a recipe that keeps all."""
    return bool(situation.eviction) or situation.cache == "headwise"


def scores(situation: Situation) -> bool:
    """Whether entries leave by their scores."""
    return bool(situation.eviction) and not situation.eviction.startswith(("window", "streaming"))


REFUSALS = (
    Refusal(
        "a cache evicts KV entries and prunes no visual token", lambda s: s.cache == "headwise" and bool(s.pruning)
    ),
    Refusal("positions=compact counts tokens along one axis", lambda s: s.family == "qwen2_5_vl"),
    Refusal("positions=relative moves sinks along the text", lambda s: s.family == "qwen2_5_vl"),
    Refusal("StaticCache", lambda s: s.cache == "static"),
    Refusal(
        "sliding window cannot be rolled back once the text is longer",
        lambda s: s.touch == "crop" and bool(s.reads.sliding),
    ),
    Refusal("cannot be rolled back, as assisted", lambda s: (s.mode == "lookup" or s.touch == "crop") and evicts(s)),
    Refusal(
        "score-based eviction takes entries out of the cache", lambda s: scores(s) and (s.cache == "none" or s.training)
    ),
    Refusal("gradient checkpointing takes the cache", lambda s: s.checkpointing and evicts(s)),
    Refusal("attention maps .* are not made", lambda s: s.touch == "attentions" and evicts(s)),
    Refusal(
        "a cache that holds no more than a sliding window no longer has tokens that positions=compact shows",
        lambda s: s.positions == "compact" and bool(s.reads.sliding) and len(s.rows) > 1,
    ),
    Refusal("visual tokens of a prompt are read", lambda s: bool(s.pruning) and (s.training or s.keep <= 3)),
    Refusal("the model computed NaN or infinite", lambda s: s.dtype == torch.float16),
    Refusal("visual tokens were dropped among them", lambda s: "relative" in s.eviction and bool(s.pruning)),
    Refusal("this cache evicts by .*; start with an empty cache", lambda s: s.cache == "headwise" and s.nested),
    Refusal(
        "position_ids start again within a row",  # a mask with 4 axes does not tell padding, whose positions are 1
        lambda s: s.touch == "packed" or (s.touch == "mask4" and s.side == "right" and bool(s.pruning)),
    ),
    Refusal("inputs_embeds hold vectors that are no rows", lambda s: s.touch == "embeds" and bool(s.pruning)),
    Refusal(
        "an attention mask with 4 axes",
        lambda s: s.touch == "mask4" and (evicts(s) or (bool(s.pruning) and s.side == "right")),
    ),
)


def allowed(situation: Situation, error: Exception) -> bool:
    """Whether this refusal is on the list for this situation."""
    told = str(error)
    return "\n" not in told and any(re.search(one.sentence, told) and one.when(situation) for one in REFUSALS)
