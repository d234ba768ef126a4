"""Heads that score not much below the average: the quality rule of FinePruner's dynamic head selection."""

from __future__ import annotations

import math

import attrs
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import number
from headwise.options import HeadRange, own_first


@attrs.frozen(eq=False, field_transformer=own_first)
class QualityThreshold(HeadRange):
    """As many heads as score above the mean score minus ``sd`` standard deviations.

    Equal scores are none above their mean, so ``low`` heads are kept then. The count stays within ``low`` and ``high``
    (default 1 and the number of heads), and never exceeds the heads that are not vetoed.
    """

    sd: float = attrs.field(default=0.3, converter=number, validator=attrs.validators.ge(0))

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """One count per row (b,), from the heads of that row that are not vetoed."""
        return self.counts(scores, self._wanted)

    def _wanted(self, scores: list[float]) -> int:
        if len(scores) < 2:
            return len(scores)
        mean = math.fsum(scores) / len(scores)  # exact, so that of equal scores none is above the mean
        deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
        return sum(score > mean - self.sd * deviation for score in scores)
