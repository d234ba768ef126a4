"""How strongly a head looks at its favourite visual token.

Among the head scores of LLaVA-FinePruner-Head, whose second softmax over attention is left out here.
"""

from __future__ import annotations

from torch import Tensor

from headwise import hookimpl


class MaxAttention:
    """Largest attention on any visual token: max x, in 0..1; grows with the mass."""

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Maximum over visual tokens: (b, h, v) -> (b, h)."""
        return attention.float().amax(dim=-1)
