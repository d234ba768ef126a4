"""The best heads that together hold most of the score: the contribution rule of FinePruner's head selection."""

from __future__ import annotations

import math
from itertools import accumulate

import attrs
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import number
from headwise.options import HeadRange, own_first


@attrs.frozen(eq=False, field_transformer=own_first)
class CumulativeContribution(HeadRange):
    """As many of the best heads as it takes to hold more than ``share`` of the sum of scores.

    Shares need scores of one sign, so a row with negative scores is shifted to a lowest score of 0; where the sum is
    then 0, no head contributes more than another and all are kept. The count stays within ``low`` and ``high`` (default
    1 and the number of heads), and never exceeds the heads that are not vetoed.
    """

    share: float = attrs.field(
        default=0.85, converter=number, validator=[attrs.validators.gt(0), attrs.validators.le(1)]
    )

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """One count per row (b,), from the heads of that row that are not vetoed."""
        return self.counts(scores, self._wanted)

    def _wanted(self, scores: list[float]) -> int:
        shift = min(scores, default=0.0)
        ranked = sorted((score - min(shift, 0.0) for score in scores), reverse=True)
        total = math.fsum(ranked)
        if total == 0:
            return len(ranked)
        return 1 + sum(held <= self.share * total for held in accumulate(ranked))
