"""How small a true difference a table could have shown: without it, "no difference" says little."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from scipy.special import ndtri

from headwise_lab.stats.differences import LEVEL, Difference

POWER = 0.8
"""A difference could have been seen if it would have counted in this share of repetitions."""


def smallest_seen(found: Iterable[Difference]) -> float | None:
    """The smallest true difference that a typical comparison of a table could have shown; None without comparisons.

    Over m comparisons with a standard error SE, a difference counts from z(1 - LEVEL / 2m) SE on (the first step of
    Holm's correction), and a true one that is z(POWER) SE larger does so POWER of the time. SE is the median over the
    comparisons whose two sides differ anywhere; what may be wrong with their reference is added.
    """
    made = [one for one in found if one.judged and one.se > 0]
    if not made:
        return None
    family = max(1, *(one.family for one in made))
    steps = float(ndtri(1 - LEVEL / (2 * family)) + ndtri(POWER))
    return median(steps * one.se + (one.allowance or 0.0) for one in made)
