"""Heads before the first wide gap in the ranked scores: the "elbow" of FinePruner's dynamic head selection."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import number, whole_or_none


@attrs.frozen(eq=False)
class ScoreGap:
    """As many heads as stand before the first gap wider than the mean gap plus ``sd`` standard deviations.

    Without such a gap ``high`` heads are kept; three heads or fewer are all kept. The count stays within ``low`` and
    ``high`` (default 1 and the number of heads), and never exceeds the heads that are not vetoed.
    """

    sd: float = attrs.field(default=0.8, converter=number, validator=attrs.validators.ge(0))
    low: int | None = attrs.field(
        default=None,
        converter=whole_or_none,
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )
    high: int | None = attrs.field(
        default=None,
        converter=whole_or_none,
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )

    def __attrs_post_init__(self) -> None:
        if (self.low or 1) > (self.high or math.inf):
            raise ValueError(f"low={self.low} is above high={self.high}")

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """One count per row (b,), from the heads of that row that are not vetoed."""
        counts = [self._count([score for score in row if score > -math.inf]) for row in scores.tolist()]
        return torch.tensor(counts, dtype=torch.int64, device=scores.device)

    def _count(self, scores: list[float]) -> int:
        ranked = sorted(scores, reverse=True)
        high = self.high or len(ranked)
        wanted = self._before_the_gap(ranked, high) if len(ranked) > 3 else len(ranked)
        return max(1, min(max(wanted, self.low or 1), high, len(ranked)))

    def _before_the_gap(self, ranked: list[float], high: int) -> int:
        gaps = [upper - lower for upper, lower in pairwise(ranked)]
        mean = math.fsum(gaps) / len(gaps)  # exact for equal gaps, where rounding would invent a wide one
        deviation = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1))
        wide = mean + self.sd * deviation
        return next((position for position, gap in enumerate(gaps, start=1) if gap > wide), high)
