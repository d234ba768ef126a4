"""How small a difference a comparison could have seen: what "no difference" leaves open."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

from headwise_lab.stats.differences import FEWEST, LEVEL, Difference

POWER = 0.8
"""The probability with which a difference of the size that is told would have counted."""


def smallest_seen(found: Difference) -> float:
    """The smallest true difference that would count with probability ``POWER``, in the units of the scores.

    By the normal approximation: the quantile of Holm's first step, plus that of ``POWER``, in standard errors; plus the
    allowance. Infinite where no difference can count: on too few units, or where the comparison is not judged. NaN
    where the standard error is 0 because no unit changed, which says nothing about other questions.
    """
    if found.n < FEWEST or found.allowance is None:
        return math.inf
    if not found.se:
        return math.nan
    normal = NormalDist()
    errors = normal.inv_cdf(1 - LEVEL / (2 * max(1, found.family))) + normal.inv_cdf(POWER)
    return errors * found.se + found.allowance


def could_be_missed(found: Iterable[Difference]) -> float | None:
    """The largest ``smallest_seen`` of the comparisons without a clear difference; None where nothing is known.

    A true difference below it may have been missed in at least one of them. Comparisons in which no difference can
    count are left out; it is infinite where that is so in all of them.
    """
    sizes = [size for one in found if not one.clear and not math.isnan(size := smallest_seen(one))]
    return max(filter(math.isfinite, sizes), default=math.inf) if sizes else None
