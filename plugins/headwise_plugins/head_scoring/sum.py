"""How much of its attention a head puts on the image: its visual mass.

The baseline of every table. SparseVLM+ (Gumpest/SparseVLMs, 12/2025) keeps its heads by this score.
"""

from __future__ import annotations

from torch import Tensor

from headwise import hookimpl


class Sum:
    """Total attention on the image: sum of x, in 0..1; grows with the mass, blind to its shape."""

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Sum over visual tokens: (b, h, v) -> (b, h)."""
        return attention.float().sum(dim=-1)
