"""How far a head's favourite visual token is above its least favourite one.

Among the head scores of LLaVA-FinePruner-Head, whose second softmax over attention is left out here.
"""

from __future__ import annotations

from torch import Tensor

from headwise import hookimpl


class AttentionRange:
    """Largest minus smallest attention on a visual token: max x - min x, in 0..1; grows with the mass.

    With hundreds of visual tokens the minimum is nearly 0, and this ranks heads almost as max_attention does.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Maximum minus minimum over visual tokens: (b, h, v) -> (b, h)."""
        x = attention.float()
        return x.amax(dim=-1) - x.amin(dim=-1)
