"""The oracle of all situations: the stock model's own layers, in float32, with masked keys; knows nothing of headwise.

One row at a time, without padding and without a cache: the whole text, answers included, goes through every layer once,
and each query is shown the keys that the rules below leave it.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from tests.adapters.vision_models import Prompt
from tests.reference.masked_vlm import positions
from torch import Tensor


class Tie(Exception):  # noqa: N818 - nothing is wrong
    """Two keys are as long as each other, as those of one word said twice: rounding decides, and either may stay."""


@attrs.frozen(eq=False, kw_only=True)
class Rules:
    """What a recipe takes away.

    ``gone``: layer -> tokens that are gone from this layer on. ``compact``: survivors are renumbered. ``sinks`` and
    ``window``: what each query sees of the tokens its layer has, or None for all. ``budget``: entries with the shortest
    keys that stay after each of ``evictions``, numbers of tokens read. ``sliding``: the model's own window in each
    layer, None where it has none; it counts what is gone, unless survivors are renumbered, and the padding between the
    ``columns`` of tokens, where those are told. ``document``: words of each of the texts that are packed into a
    row, or None for one text.
    """

    gone: dict[int, Sequence[int]] = attrs.field(factory=dict)
    compact: bool = False
    sinks: int = 0
    window: int | None = None
    budget: int | None = None
    evictions: Sequence[int] = ()
    sliding: Sequence[int | None] = ()
    columns: Sequence[int] = ()
    document: int | None = None


def logits(model, prompts: Sequence[Prompt], ids: Tensor, rules: Rules) -> Tensor:
    """Logits (n, vocabulary) of ids (n,), the text of ``prompts`` with what was said between and behind them."""
    return logits_of(model, _embedded(model, prompts, ids), positions_of(model, prompts, ids[None]), rules)


def logits_of(model, states: Tensor, places: Tensor, rules: Rules) -> Tensor:
    """Logits (n, vocabulary) of what the language model is given, (1, n, d), at its places (1, n) or (3, 1, n)."""
    inner = model.gpt_neox if hasattr(model, "gpt_neox") else getattr(model.model, "language_model", model.model)
    if rules.document is not None:
        places = places % rules.document
    gone = torch.zeros(states.shape[1], dtype=torch.bool)
    for number, layer in enumerate(inner.layers):
        gone[list(rules.gone.get(number, ()))] = True
        at = places - torch.cumsum(gone, 0) if rules.compact else places
        rotary = inner.rotary_emb(states, position_ids=at)
        own = rules.sliding[number] if rules.sliding else None
        mask = _visible(layer, states, gone, rules, own)
        hidden = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[None]
        states = layer(states, attention_mask=hidden, position_embeddings=rotary, position_ids=None)
        states = states[0] if isinstance(states, tuple) else states
    if hasattr(model, "gpt_neox"):
        return model.lm_head(inner.final_layer_norm(states))[0]
    return model.lm_head(inner.norm(states))[0]


def _embedded(model, prompts: Sequence[Prompt], ids: Tensor) -> Tensor:
    with_images = [prompt.images for prompt in prompts if prompt.images]
    if not with_images:
        return model.get_input_embeddings()(ids[None])
    states = model.get_input_embeddings()(ids[None])
    found = [model.get_image_features(**images, return_dict=True).pooler_output for images in with_images]
    states[ids[None] == model.config.image_token_id] = torch.cat([part for features in found for part in features])
    return states


def positions_of(model, prompts: Sequence[Prompt], ids: Tensor) -> Tensor:
    """Position ids of ids (1, n): (1, n), or (3, 1, n) where images have rows and columns."""
    grids = [prompt.images["image_grid_thw"] for prompt in prompts if "image_grid_thw" in prompt.images]
    return positions(model, ids, {"image_grid_thw": torch.cat(grids)} if grids else {})


def _visible(layer, states: Tensor, gone: Tensor, rules: Rules, own: int | None) -> Tensor:
    """Bool (1 or heads, n, n): the keys each query may see in this layer."""
    length = states.shape[1]
    number = torch.arange(length)
    seen = (number[None, :] <= number[:, None]) & ~gone[None, :]
    if own is not None:
        column = torch.tensor(rules.columns) if rules.columns else number
        at = column - torch.cumsum(gone, 0) if rules.compact else column
        seen = seen & (at[:, None] - at[None, :] < own)
    if rules.document is not None:
        seen = seen & (number[:, None] // rules.document == number[None, :] // rules.document)
    if rules.window is not None:
        rank = torch.cumsum(~gone, 0) - 1  # the how-manieth token of those this layer has
        seen = seen & ((rank[None, :] < rules.sinks) | (rank[:, None] - rank[None, :] < rules.window))
    seen = seen[None]
    if rules.budget is not None:
        seen = seen & _held(layer, states, rules, own)
    return seen | torch.eye(length, dtype=torch.bool)  # a token that is gone sees itself: nobody reads what it becomes


def _held(layer, states: Tensor, rules: Rules, own: int | None) -> Tensor:
    """Bool (heads, n, n): keys still there when each query comes: the shortest are left, as knorm scores."""
    module = layer.self_attn
    keys = module.k_proj(layer.input_layernorm(states))[0].unflatten(-1, (-1, module.head_dim))
    if hasattr(module, "k_norm"):
        keys = module.k_norm(keys)
    lengths, total = keys.float().norm(dim=-1).T, states.shape[1]  # (KV heads, n)
    heads = []
    for norms in lengths.tolist():
        held, there = list(range(total)), torch.ones(total, total, dtype=torch.bool)
        for read in rules.evictions:
            left = [token for token in held if token < read]
            if own is not None:  # what no later query can see leaves first
                left.sort(key=lambda token: (read - token >= own, norms[token], token))
            else:
                left.sort(key=lambda token: (norms[token], token))
            edge = [norms[token] for token in left[rules.budget - 1 : rules.budget + 1]]
            if len(edge) == 2 and abs(edge[0] - edge[1]) < 1e-5 * edge[0]:
                raise Tie
            for token in left[rules.budget :]:
                there[read:, token] = False
                held.remove(token)
        heads.append(there)
    shared = module.config.num_attention_heads // len(heads)
    return torch.stack(heads).repeat_interleave(shared, dim=0)
