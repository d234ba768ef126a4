"""The best heads that together hold most of the score: the contribution rule of FinePruner's head selection."""

from __future__ import annotations

import math
from itertools import accumulate

import attrs
import torch
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import number, whole_or_none


@attrs.frozen(eq=False)
class CumulativeContribution:
    """As many of the best heads as it takes to hold more than ``share`` of the sum of scores.

    Shares need scores of one sign, so a row with negative scores is shifted to a lowest score of 0; where the sum is
    then 0, no head contributes more than another and all are kept. The count stays within ``low`` and ``high`` (default
    1 and the number of heads), and never exceeds the heads that are not vetoed.
    """

    share: float = attrs.field(
        default=0.85, converter=number, validator=[attrs.validators.gt(0), attrs.validators.le(1)]
    )
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
        wanted = self._until_share(scores)
        return max(1, min(max(wanted, self.low or 1), self.high or len(scores), len(scores)))

    def _until_share(self, scores: list[float]) -> int:
        shift = min(scores, default=0.0)
        ranked = sorted((score - min(shift, 0.0) for score in scores), reverse=True)
        total = math.fsum(ranked)
        if total == 0:
            return len(ranked)
        return 1 + sum(held <= self.share * total for held in accumulate(ranked))
