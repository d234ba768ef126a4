"""Generation for harnesses: with stop texts and optional sampling, or with forced tokens, to score them.

All of it calls the model's own ``generate``, so that an attached recipe works as usual.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from headwise_lab.models.generation import greedy

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase


log = logging.getLogger(__name__)

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("temperature", "top_p", "top_k")
_SLACK = 8  # tokens that may have no text of their own, such as the bytes of one character


@attrs.frozen(kw_only=True)
class Wish:
    """How to answer a request: at most ``most`` tokens, up to one of the texts ``stops``; ``sampling`` empty: greedily.

    ``ignored``: names of generation arguments that headwise does not support.
    """

    most: int
    stops: tuple[str, ...] = ()
    beams: int = 1
    sampling: Mapping[str, float] = attrs.field(factory=dict)
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any], most: int) -> Wish:
        """From the generation arguments of a task; ``most`` is the number of tokens where the task names none."""
        lengths = list(_present(given, _LENGTHS).values())
        until = given.get("until") or ()
        temperature = given.get("temperature")
        samples = given.get("do_sample", bool(temperature)) and temperature != 0
        known = {*_LENGTHS, *_SAMPLING, "until", "do_sample", "num_beams"}
        return cls(
            most=int(lengths[0] if lengths else most),
            stops=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
            beams=int(given.get("num_beams") or 1),
            sampling={"temperature": 1.0, **_present(given, _SAMPLING)} if samples else {},
            ignored=tuple(sorted(set(given) - known)),
        )

    def cut(self, text: str) -> str:
        """The text up to the first stop."""
        for stop in self.stops:
            text = text.partition(stop)[0]
        return text


def wishes_of(requests: Sequence[Instance], most: int) -> list[Wish]:
    """The wish of every request of a harness; logs a warning for each argument that headwise does not support."""
    wishes = [Wish.of(request.args[1], most) for request in requests]
    for name in sorted({name for wish in wishes for name in wish.ignored}):
        log.warning("headwise does not support the generation argument %s and ignores it", name)
    return wishes


def _present(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if given.get(name) is not None}


def batched(wishes: Sequence[Wish], size: int, lengths: Sequence[int] | None = None) -> list[list[int]]:
    """Batches of row numbers: at most ``size`` rows with the same wish, the longest prompts first where known."""
    alike: dict[str, list[int]] = {}
    for row, wish in enumerate(wishes):
        alike.setdefault(repr(wish), []).append(row)
    if lengths is not None:
        for rows in alike.values():
            rows.sort(key=lambda row: -lengths[row])
    return [rows[first : first + size] for rows in alike.values() for first in range(0, len(rows), size)]


class Stopping(StoppingCriteria):  # type: ignore[misc]
    """Ends a row once its new text contains one of the stop texts."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], start: int) -> None:
        self._tokenizer, self._stops, self._start = tokenizer, stops, start
        self._tail = max(map(len, stops)) + _SLACK

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Whether each row has to end, bool (b,), for the ids (b, n) so far."""
        new = input_ids[:, max(self._start, input_ids.shape[1] - self._tail) :]
        texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        found = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(found, device=input_ids.device)


class Dictation(LogitsProcessor):  # type: ignore[misc]
    """Forces ``generate`` to write given tokens, and stores the loss of each.

    ``ids`` int64 (b, n): the tokens; shorter rows are padded with any token. ``nll`` float64 (b, n): losses in nats.
    ``right`` bool (b, n): whether the token was the most probable one.
    """

    def __init__(self, ids: Tensor, start: int) -> None:
        self._ids, self._start = ids, start
        self.nll = torch.zeros(ids.shape, dtype=torch.float64)
        self.right = torch.zeros(ids.shape, dtype=torch.bool)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (b, vocabulary) that allow only the next given token."""
        step = input_ids.shape[1] - self._start
        wanted = self._ids[:, step : step + 1].to(scores.device)
        self.nll[:, step] = -torch.log_softmax(scores.float(), dim=-1).gather(1, wanted)[:, 0].double().cpu()
        self.right[:, step] = (scores.argmax(dim=-1) == wanted[:, 0]).cpu()
        return torch.full_like(scores, -torch.inf).scatter(1, wanted, 0.0)


@torch.inference_mode()
def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tensors: BatchFeature, wish: Wish) -> list[str]:
    """The new text of every row of left-padded prompts, up to the first stop text."""
    start, samples = tensors["input_ids"].shape[1], bool(wish.sampling)
    chosen = greedy(model, tokenizer, wish.most, num_beams=wish.beams, do_sample=samples, **wish.sampling)
    stopping = [Stopping(tokenizer, wish.stops, start)] if wish.stops else None
    ids = model.generate(**tensors, generation_config=chosen, stopping_criteria=stopping)
    return [wish.cut(text) for text in tokenizer.batch_decode(ids[:, start:], skip_special_tokens=True)]


@torch.inference_mode()
def dictated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tensors: BatchFeature, rows: Sequence[Sequence[int]]
) -> list[tuple[Tensor, bool]]:
    """For every row the losses in nats of the given tokens (n,), and whether a greedy answer would be these tokens.

    The left-padded prompts are read at once, and then one token after the other, as in generation. So a recipe chooses
    what to keep before it sees the answer, and a cache evicts while the answer is read.
    """
    most = max(map(len, rows))
    ids = torch.tensor([[*row, *[tokenizer.pad_token_id] * (most - len(row))] for row in rows])
    dictation = Dictation(ids, tensors["input_ids"].shape[1])
    chosen = GenerationConfig(max_new_tokens=most, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    with _nothing_of_its_own(model):
        model.generate(**tensors, generation_config=chosen, logits_processor=[dictation])
    found = zip(dictation.nll, dictation.right, map(len, rows), strict=True)
    return [(nll[:count], bool(right[:count].all())) for nll, right, count in found]


@contextmanager
def _nothing_of_its_own(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model has no penalties and no end-of-text token, because a forced token may be that token."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
