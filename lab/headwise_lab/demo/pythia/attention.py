"""Causal attention for training on a CPU: a block of queries never computes scores for the keys after it.

It gives the same numbers as transformers' eager attention with about 60 % of the arithmetic, and without passes over
memory to scale and mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn import Module


NAME = "headwise_demo_blocks"
BLOCK = 128  # queries


def blocked_attention(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of query, key, value (batch, heads, tokens, dim) without padding: (batch, tokens, heads, dim)."""
    if attention_mask is not None:
        raise ValueError(f"{NAME} takes no attention mask; switch the model to eager attention first")
    length = query.size(2)
    flat_query, flat_key, flat_value = (t.flatten(0, 1) for t in (query, key, value))
    parts = []
    for start in range(0, length, BLOCK):
        end = min(start + BLOCK, length)
        mask = query.new_full((end - start, end), -torch.inf).triu(start + 1)
        scores = torch.baddbmm(mask, flat_query[:, start:end], flat_key[:, :end].mT, alpha=scaling)
        parts.append(scores.softmax(dim=-1) @ flat_value[:, :end])
    together = torch.cat(parts, dim=1).view(query.shape)
    return together.transpose(1, 2).contiguous(), None


def register() -> str:
    """Register this attention with transformers, which then makes no mask for it; returns its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, blocked_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    return NAME


def _no_mask(*_: object, **__: object) -> None:
    """No mask: the blocks are causal themselves."""
