"""Every head decides: what FastV does."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise import hookimpl


@attrs.frozen(eq=False)
class All:
    """All heads, whatever their scores; with any head scoring this is plain FastV."""

    def target(self, heads: int) -> int:
        """The count is known without looking: every one of ``heads``."""
        return heads

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """The model's number of heads for every row (b,)."""
        batch, heads = scores.shape
        return torch.full((batch,), heads, dtype=torch.int64, device=scores.device)
