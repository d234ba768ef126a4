"""How unequally a head shares its attention among visual tokens, by the Gini coefficient.

The index is Gini's ("Variabilità e mutabilità", 1912). Among the head scores of LLaVA-FinePruner-Head, whose second
softmax over attention is left out here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwise import hookimpl
from headwise.attention_math import shares


class GiniCoefficient:
    """Gini coefficient: sum of (2i - v - 1) p_(i) / v over ascending renormalised attention p; 0 even, 1 - 1/v peaked.

    Ignores how much attention the image gets; a head that ignores the image scores 0.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Gini coefficient over visual tokens: (b, h, v) -> (b, h)."""
        ascending, tokens = shares(attention.float()).sort(dim=-1).values, attention.shape[-1]
        weights = torch.arange(1 - tokens, tokens, 2, dtype=torch.float32, device=attention.device)
        return ((ascending * weights).sum(dim=-1) / tokens).clamp_min(0)  # for an even row, rounding gives about -1e-7
