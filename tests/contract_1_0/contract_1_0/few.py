"""A fixed count that is known beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from headwise import hookimpl


class Few:
    """Half of the heads, rounded up."""

    def target(self, heads: int) -> int:
        """How many of ``heads``."""
        return (heads + 1) // 2

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """Counts (b,)."""
        return torch.full((scores.shape[0],), self.target(scores.shape[1]), device=scores.device)
