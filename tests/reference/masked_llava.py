"""A slow LLaVA that drops nothing: the tokens a method would drop are masked for all queries of the later layers.

Written layer by layer over the stock modules, one prompt at a time, without a cache and without any of our hooks. In
exact arithmetic a causal decoder whose dropped keys are masked gives the remaining tokens the same hidden states as
one whose dropped tokens are gone, as long as position ids are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_logits(
    model, ids: Tensor, pixels: Tensor | None, stages: list[tuple[int, Tensor]], compact=False, merges=None
) -> Tensor:
    """Logits (1, n, vocabulary). ``stages``: (layer, positions that are gone from this layer on), ascending.

    ``merges``: layer -> (places (k,), weights (k, v), image positions (v,)): before this layer, the states at the
    places become sums of those at the image positions.
    """
    states = _run(model, ids, pixels, stages, compact, merges or {})[0]
    return model.lm_head(model.model.language_model.norm(states))


def masked_attention(model, ids: Tensor, pixels: Tensor, stages: list[tuple[int, Tensor]], layer: int) -> Tensor:
    """Eager attention map (1, h, n, n) of one layer."""
    return _run(model, ids, pixels, stages, False, {}, layer)[1]


def _run(model, ids, pixels, stages, compact, merges, wanted=None):
    language = model.model.language_model
    states = model.get_input_embeddings()(ids)
    if pixels is not None:
        features = model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
        image = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(states)
        states = states.masked_scatter(image, torch.cat(list(features)).to(states.dtype))
    length = ids.shape[1]
    gone = torch.zeros(length, dtype=torch.bool)
    drop_at, attention = dict(stages), None
    for number, layer in enumerate(language.layers):
        if number in merges:
            places, weights, image_positions = merges[number]
            sums = [sum(w * states[0, p] for w, p in zip(row, image_positions, strict=True)) for row in weights]
            states = states.clone()
            states[0, places] = torch.stack(sums)
        if number in drop_at:
            gone[drop_at[number]] = True
        allowed = torch.ones(length, length, dtype=torch.bool).tril() & ~gone
        allowed |= torch.eye(length, dtype=torch.bool)  # a dropped token sees itself: nobody reads what it becomes
        mask = torch.zeros(length, length).masked_fill(~allowed, torch.finfo(states.dtype).min)
        positions = torch.arange(length)
        if compact:
            positions = positions - torch.cumsum(gone, 0)
        rotary = language.rotary_emb(states, position_ids=positions[None])
        own = layer.self_attn.config._attn_implementation_internal
        layer.self_attn.config._attn_implementation_internal = "eager"
        seen = []
        handle = layer.self_attn.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output[1]))
        try:
            states = layer(states, attention_mask=mask[None, None], position_embeddings=rotary, position_ids=None)
        finally:
            layer.self_attn.config._attn_implementation_internal = own
            handle.remove()
        if number == wanted:
            attention = seen[0]
    return states, attention


def masked_greedy(model, ids: Tensor, pixels: Tensor, stages: list[tuple[int, Tensor]], steps: int) -> Tensor:
    """Greedy continuation (1, steps), running the whole sequence anew for every token."""
    start = ids.shape[1]
    for _ in range(steps):
        following = masked_logits(model, ids, pixels, stages)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, following], dim=1)
    return ids[:, start:]


def fastv_dropped(model, ids: Tensor, pixels: Tensor, layer: int, keep: int, heads: list[int] | None = None) -> Tensor:
    """Positions FastV drops before ``layer``, from eager attention maps, by counting who ranks above whom."""
    own = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": "eager"})
    try:
        maps = model(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions
    finally:
        model.set_attn_implementation({"text_config": own})
    rows = maps[layer - 1][0][:, -1].float()
    scores = rows[heads].mean(0) if heads is not None else rows.mean(0)
    image = [p for p in range(ids.shape[1]) if ids[0, p] == model.config.image_token_id]
    above = {p: sum((scores[o] > scores[p]) or (scores[o] == scores[p] and o < p) for o in image) for p in image}
    return torch.tensor([p for p in image if above[p] >= keep])
