"""Heads before the first wide gap in the ranked scores: the "elbow" of FinePruner's dynamic head selection."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import number
from headwise.options import HeadRange, own_first


@attrs.frozen(eq=False, field_transformer=own_first)
class ScoreGap(HeadRange):
    """As many heads as stand before the first gap wider than the mean gap plus ``sd`` standard deviations.

    Without such a gap ``high`` heads are kept; three heads or fewer are all kept. The count stays within ``low`` and
    ``high`` (default 1 and the number of heads), and never exceeds the heads that are not vetoed.
    """

    sd: float = attrs.field(default=0.8, converter=number, validator=attrs.validators.ge(0))

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """One count per row (b,), from the heads of that row that are not vetoed."""
        return self.counts(scores, self._wanted)

    def _wanted(self, scores: list[float]) -> int:
        if len(scores) <= 3:
            return len(scores)
        ranked = sorted(scores, reverse=True)
        gaps = [upper - lower for upper, lower in pairwise(ranked)]
        mean = math.fsum(gaps) / len(gaps)  # exact, so that of equal gaps none is wide
        deviation = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1))
        wide = mean + self.sd * deviation
        return next((position for position, gap in enumerate(gaps, start=1) if gap > wide), len(scores))
