"""A slow vision-language model that drops nothing: what a method would drop is masked for all later layers' queries.

For models whose images come with their sizes, and whose positions may have several axes. Written layer by layer over
the stock modules, one prompt at a time, without a cache and without any of our hooks; see ``masked_llava``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def embedded(model, ids: Tensor, images: dict[str, Tensor]) -> Tensor:
    """What the language model is given, (1, n, d)."""
    states = model.get_input_embeddings()(ids)
    if images:
        features = torch.cat(list(model.get_image_features(**images, return_dict=True).pooler_output))
        states[ids == model.config.image_token_id] = features.to(states.dtype)
    return states


def positions(model, ids: Tensor, images: dict[str, Tensor]) -> Tensor:
    """Position ids: (1, n), or (3, 1, n) counted by hand where images have a grid of rows and columns."""
    if "image_grid_thw" not in images:
        return torch.arange(ids.shape[1])[None]
    grids, found, start, place = images["image_grid_thw"].tolist(), [], 0, 0
    while place < ids.shape[1]:
        if ids[0, place] != model.config.image_token_id:
            found.append([start] * 3)
            start, place = start + 1, place + 1
            continue
        _, height, width = grids.pop(0)
        found += [[start, start + row, start + column] for row in range(height // 2) for column in range(width // 2)]
        place, start = place + height * width // 4, start + max(height, width) // 2
    return torch.tensor(found).T[:, None]


def masked_logits(model, ids: Tensor, images: dict[str, Tensor], stages: list[tuple[int, Tensor]]) -> Tensor:
    """Logits (1, n, vocabulary). ``stages``: (layer, positions that are gone from this layer on), ascending."""
    language, states = model.model.language_model, embedded(model, ids, images)
    length = ids.shape[1]
    gone = torch.zeros(length, dtype=torch.bool)
    drop_at = dict(stages)
    rotary = language.rotary_emb(states, position_ids=positions(model, ids, images))
    for number, layer in enumerate(language.layers):
        if number in drop_at:
            gone[drop_at[number]] = True
        allowed = torch.ones(length, length, dtype=torch.bool).tril() & ~gone
        allowed |= torch.eye(length, dtype=torch.bool)  # a dropped token sees itself: nobody reads what it becomes
        mask = torch.zeros(length, length).masked_fill(~allowed, torch.finfo(states.dtype).min)
        own = layer.self_attn.config._attn_implementation_internal
        layer.self_attn.config._attn_implementation_internal = "eager"
        try:
            states = layer(states, attention_mask=mask[None, None], position_embeddings=rotary, position_ids=None)
        finally:
            layer.self_attn.config._attn_implementation_internal = own
    return model.lm_head(language.norm(states))


def masked_greedy(
    model, ids: Tensor, images: dict[str, Tensor], stages: list[tuple[int, Tensor]], steps: int
) -> Tensor:
    """Greedy continuation (1, steps), running the whole sequence anew for every token."""
    start = ids.shape[1]
    for _ in range(steps):
        following = masked_logits(model, ids, images, stages)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, following], dim=1)
    return ids[:, start:]


def fastv_dropped(model, inputs: dict[str, Tensor], layer: int, keep: int) -> Tensor:
    """Positions FastV drops before ``layer``, from eager attention maps, by counting who ranks above whom."""
    own = model.config.text_config._attn_implementation
    model.set_attn_implementation({"text_config": "eager"})
    try:
        maps = model(**inputs, output_attentions=True).attentions
    finally:
        model.set_attn_implementation({"text_config": own})
    scores, ids = maps[layer - 1][0][:, -1].float().mean(0).tolist(), inputs["input_ids"][0].tolist()
    image = [p for p in range(len(ids)) if ids[p] == model.config.image_token_id]
    above = {p: sum((scores[o] > scores[p]) or (scores[o] == scores[p] and o < p) for o in image) for p in image}
    return torch.tensor([p for p in image if above[p] >= keep])
