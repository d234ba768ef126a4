"""StreamingLLM on any stock model, slowly: keys are cached unturned, and the model's own function turns them afresh.

One token at a time. Every attention call gets queries and keys that nobody turned, keeps those of the first and the
last tokens, and has the model's own ``apply_rotary_pos_emb`` turn them at the places that they have among those kept.
A layer that never calls that function has no positions, and its keys stay as they are.
"""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def streamed(model, ids: Tensor, *, sinks: int, recent: int) -> Tensor:
    """Logits (1, n, vocabulary); a token sees the ``sinks``, the ``recent`` tokens before it, and itself."""
    text, code = model.model, sys.modules[type(model).__module__]
    turn, called = code.apply_rotary_pos_emb, []

    def unturned(query, key, *args, **kwargs):
        called.append(True)
        return query, key

    def attend(module, query, key, value, mask, scaling=None, **kwargs):
        count = key.shape[2]
        stay = sorted({*range(min(sinks, count)), *range(max(0, count - 1 - recent), count)})
        key, value = key[:, :, stay], value[:, :, stay]
        if called:
            key, query = turned(module, key, range(len(stay))), turned(module, query, [len(stay) - 1])
            called.clear()
        shared = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        weights = (query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)).softmax(dim=-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    def turned(module, states, places):
        position_ids = torch.tensor([list(places)])
        kinds = isinstance(getattr(text.rotary_emb, "rope_type", None), dict)
        kind = (text.config.layer_types[module.layer_idx],) if kinds else ()
        cos, sin = text.rotary_emb(states, position_ids, *kind)
        size = cos.shape[-1]
        found, _ = turn(states[..., :size], states[..., :size], cos, sin)
        return torch.cat([found, states[..., size:]], dim=-1)

    implementation = model.config._attn_implementation
    cache = DynamicCache()  # without the config, so that no layer slides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "apply_rotary_pos_emb", unturned)
        patch.setitem(ALL_ATTENTION_FUNCTIONS, "streaming_stock", attend)
        try:
            model.set_attn_implementation("streaming_stock")
            steps = [model(ids[:, t : t + 1], past_key_values=cache).logits for t in range(ids.shape[1])]
        finally:
            model.set_attn_implementation(implementation)
    return torch.cat(steps, 1)
