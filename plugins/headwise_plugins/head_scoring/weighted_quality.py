"""Three measures of a peaked head in one: its peak, its concentration and how few tokens come near the peak.

Among the head scores of LLaVA-FinePruner-Head, whose second softmax over attention is left out here.
"""

from __future__ import annotations

from torch import Tensor

from headwise import hookimpl
from headwise.attention_math import shares


class WeightedQuality:
    """Peak, concentration and coverage: .4 max p + .4 sum p^2 + .2 / #{p >= max p / 10}, p renormalised; 1/v..1.

    An even head, or one that ignores the image, scores 1/v; a single token scores 1.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Weighted quality over visual tokens: (b, h, v) -> (b, h)."""
        p = shares(attention.float())
        peak = p.amax(dim=-1)
        near_peak = (p >= 0.1 * peak.unsqueeze(-1)).sum(dim=-1)  # the peak itself counts, so never 0
        return 0.4 * peak + 0.4 * p.square().sum(dim=-1) + 0.2 / near_peak
