"""How unevenly a head spreads its attention over the image, in the units of that attention squared.

Among the head scores of LLaVA-FinePruner-Head, whose second softmax over attention is left out here.
"""

from __future__ import annotations

from torch import Tensor

from headwise import hookimpl


class Variance:
    """Sample variance over visual tokens: sum (x - mean)^2 / (v - 1); grows with both mass and unevenness.

    Mass m on a single token gives m^2 / v, an even row or a single token gives 0.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Variance over visual tokens: (b, h, v) -> (b, h)."""
        x = attention.float()
        deviation = x - x.mean(dim=-1, keepdim=True)
        return deviation.square().sum(dim=-1) / max(x.shape[-1] - 1, 1)  # a single token has variance 0
