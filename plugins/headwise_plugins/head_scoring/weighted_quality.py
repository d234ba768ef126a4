"""Three measures of a peaked head in one: its peak, its concentration and how few tokens come near the peak."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise import hookimpl


class WeightedQuality:
    """Peak, concentration and coverage: .4 max p + .4 sum p^2 + .2 / #{p >= max p / 10}, p renormalised; 1/v..1.

    An even head, or one that ignores the image, scores 1/v; a single token scores 1.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Weighted quality over visual tokens: (b, h, v) -> (b, h)."""
        p = _shares(attention)
        peak = p.amax(dim=-1)
        near_peak = (p >= 0.1 * peak.unsqueeze(-1)).sum(dim=-1)  # the peak itself counts, so never 0
        return 0.4 * peak + 0.4 * p.square().sum(dim=-1) + 0.2 / near_peak


def _shares(attention: Tensor) -> Tensor:
    """Attention renormalised over the image; a head that ignores it counts as even."""
    x = attention.float()
    mass, tiny = x.sum(dim=-1, keepdim=True), torch.finfo(torch.float32).tiny
    return torch.where(mass > tiny, x / mass.clamp_min(tiny), 1 / x.shape[-1])
