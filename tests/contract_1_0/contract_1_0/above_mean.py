"""How many heads decide: those above the mean score."""

from __future__ import annotations

import attrs
from torch import Tensor

from headwise import hookimpl


@attrs.frozen(eq=False)
class AboveMean:
    """As many heads as score above the mean of those that are not vetoed, and at least ``least``."""

    least: int = attrs.field(default=1, converter=int, validator=attrs.validators.ge(1))

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """Counts (b,) for scores (b, h), where -inf vetoes a head."""
        valid = scores.isfinite()
        mean = scores.where(valid, 0.0).sum(dim=-1, keepdim=True) / valid.sum(dim=-1, keepdim=True)
        count = ((scores > mean) & valid).sum(dim=-1)
        return count.clamp(min=self.least).minimum(valid.sum(dim=-1))
