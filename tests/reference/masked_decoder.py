"""A stock decoder in which some keys are masked, head by head and layer by layer: what eviction must equal."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_logits(model, ids: Tensor, visible: list[Tensor]) -> Tensor:
    """Logits (n, vocabulary) of ids (n,); ``visible[layer]`` bool (heads, n, n): which keys each query may see.

    The model runs as it is, without a cache; only the mask that each attention module is handed is exchanged.
    """
    layers = model.gpt_neox.layers if hasattr(model, "gpt_neox") else model.model.layers
    handles = []
    for layer, seen in zip(layers, visible, strict=True):
        module = layer.attention if hasattr(layer, "attention") else layer.self_attn
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None]

        def exchange(_, args, kwargs, mask=mask):
            if len(args) > 1:
                return (args[0], mask, *args[2:]), kwargs
            return args, {**kwargs, "attention_mask": mask}

        handles.append(module.register_forward_pre_hook(exchange, with_kwargs=True))
    try:
        return model(input_ids=ids[None], use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


def windows_seen(sinks, windows, length: int, shared: int) -> list[Tensor]:
    """Bool (heads, n, n) per layer for sinks and windows (layers, kv_heads), counted one key at a time."""
    layers = []
    for row_sinks, row_windows in zip(sinks.tolist(), windows.tolist(), strict=True):
        seen = torch.zeros(len(row_sinks) * shared, length, length, dtype=torch.bool)
        for head in range(seen.shape[0]):
            sink, window = row_sinks[head // shared], row_windows[head // shared]
            for query in range(length):
                for key in range(query + 1):
                    seen[head, query, key] = key < sink or query - key < window
        layers.append(seen)
    return layers
