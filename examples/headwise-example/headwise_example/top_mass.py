"""Scores a head by how much of its image attention lies on a small share of the visual tokens."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from headwise import hookimpl


@attrs.frozen(eq=False)
class TopMass:
    """Share of a head's image attention on its ``share`` best visual tokens, in 0..1; 0 for a head that sees none."""

    share: float = attrs.field(
        default=0.05, converter=float, validator=[attrs.validators.gt(0), attrs.validators.le(1)]
    )

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Scores (b, h) of attention (b, h, v)."""
        attention = attention.float()
        best = attention.topk(math.ceil(self.share * attention.shape[-1]), dim=-1).values
        return best.sum(dim=-1) / attention.sum(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
