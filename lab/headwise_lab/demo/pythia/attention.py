"""Causal attention for training on a CPU: query blocks that never compute the keys after them.

The same numbers as transformers' eager attention in about 60 % of its arithmetic, and without its passes over memory
for scale and mask.
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
    """Of query, key, value (batch, heads, tokens, dim) without padding; the result is (batch, tokens, heads, dim)."""
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
    """Make it known to transformers, without a mask of transformers' own; returns its name."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, blocked_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
    return NAME


def _no_mask(*_: object, **__: object) -> None:
    """Causality is in the blocks."""
