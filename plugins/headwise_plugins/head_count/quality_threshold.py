"""Heads that score not much below the average: the quality rule of FinePruner's dynamic head selection."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import number, whole_or_none


@attrs.frozen(eq=False)
class QualityThreshold:
    """As many heads as score above the mean score minus ``sd`` standard deviations.

    Equal scores are none above their mean, so ``low`` heads are kept then. The count stays within ``low`` and ``high``
    (default 1 and the number of heads), and never exceeds the heads that are not vetoed.
    """

    sd: float = attrs.field(default=0.3, converter=number, validator=attrs.validators.ge(0))
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
        wanted = self._above_threshold(scores) if len(scores) > 1 else len(scores)
        return max(1, min(max(wanted, self.low or 1), self.high or len(scores), len(scores)))

    def _above_threshold(self, scores: list[float]) -> int:
        mean = math.fsum(scores) / len(scores)  # exact for equal scores, where rounding would count some
        deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
        return sum(score > mean - self.sd * deviation for score in scores)
