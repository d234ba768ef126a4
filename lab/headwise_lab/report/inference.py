"""What a paired difference is worth: bootstrap intervals, McNemar's exact test, and corrections over a table.

Everything here is deterministic: resamples come from a fixed seed, do not depend on the order of the units, and are
mirrored where left and right change places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from headwise_lab.report.statistics import FEWEST, paired

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 20_061

_FEW_VALUES = 64  # so many distinct values are drawn by their counts, which is the same and much faster
_AT_ONCE = 4_000_000  # numbers drawn in one piece: 32 MB
_NORMAL = NormalDist()

Values = NDArray[np.float64]


@attrs.frozen
class Comparison:
    """Left minus right over the ``n`` units that both have, in the units of the scores.

    ``se`` is that of the paired difference, ``low`` and ``high`` end its confidence interval, both NaN below ten units.
    ``p_bootstrap`` is two-sided, 1 below ten units. ``p_mcnemar`` and ``discordant``, how many units only left and only
    right got right, are None where scores are not binary.
    """

    n: int
    difference: float
    se: float
    low: float
    high: float
    p_bootstrap: float
    p_mcnemar: float | None = None
    discordant: tuple[int, int] | None = None

    @property
    def probability(self) -> float:
        """The exact test's where there is one, else the bootstrap's."""
        return self.p_bootstrap if self.p_mcnemar is None else self.p_mcnemar


def compare(
    left: Mapping[Any, float], right: Mapping[Any, float], *, resamples: int = RESAMPLES, seed: int = SEED
) -> Comparison | None:
    """Compare two trials unit by unit; None where they share no unit.

    ``left`` and ``right`` map a unit (a question, a pair of MME, a token) to its score. Units are what is resampled, so
    questions that hang together must be one unit.

    Interval: BCa bootstrap (Efron 1987, "Better bootstrap confidence intervals"), seeded. ``p_bootstrap``: resampled
    differences moved to 0, and the share of them at least as large as what was found, (b + 1) / (B + 1) (Efron and
    Tibshirani 1993, section 16.4; Davison and Hinkley 1997, section 4.2). ``p_mcnemar``: where every score is nought or
    one and the same full mark, the exact binomial test on the units that changed (McNemar 1947).
    """
    found = paired(left, right)
    if found is None:
        return None
    shared = [key for key in left if key in right]
    values = np.array([left[key] - right[key] for key in shared], dtype=np.float64)
    low, high, probability = math.nan, math.nan, 1.0
    if found.n >= FEWEST:
        drawn = resampled_means(values, resamples, seed)
        low, high = interval(values, drawn)
        probability = bootstrap_probability(values, drawn)
    changed = _discordant([left[key] for key in shared], [right[key] for key in shared])
    exact = None if changed is None else mcnemar(*changed)
    return Comparison(found.n, found.value, found.se, low, high, probability, exact, changed)


def interval(values: Values, drawn: Values, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """BCa interval of the mean of values, by their resampled means; both ends are the mean where all are equal."""
    mean, away = _mean(values), values - _mean(values)
    squares = math.fsum(away**2)
    if squares <= (1e-12 * float(np.abs(values).max(initial=0.0))) ** 2 * len(values):
        return mean, mean
    below = (np.count_nonzero(drawn < mean) + np.count_nonzero(drawn <= mean)) / 2
    bias = _NORMAL.inv_cdf(min(max(below, 0.5), len(drawn) - 0.5) / len(drawn))
    acceleration = math.fsum(away**3) / (6 * squares**1.5)  # the jackknife's, in closed form for a mean

    def level(z: float) -> float:
        moved = bias + z
        return _NORMAL.cdf(bias + moved / (1 - acceleration * moved))

    z = _NORMAL.inv_cdf((1 + confidence) / 2)
    low, high = np.quantile(drawn, [level(-z), level(z)])
    return float(low), float(high)


def bootstrap_probability(values: Values, drawn: Values) -> float:
    """Two-sided probability of a mean this far from 0, were the true one 0, by resampled means."""
    mean = _mean(values)
    slack = 1e-9 * float(np.abs(values).max(initial=0.0))  # equal sums may differ in the last digit
    as_far = np.count_nonzero(np.abs(drawn - mean) >= abs(mean) - slack)
    return float((as_far + 1) / (len(drawn) + 1))


def resampled_means(values: Values, resamples: int = RESAMPLES, seed: int = SEED) -> Values:
    """Means of ``resamples`` samples with replacement, each as long as ``values``."""
    generator = np.random.default_rng(seed)
    sign = -1.0 if _mean(values) < 0 else 1.0
    ordered = np.sort(sign * values)
    distinct, counts = np.unique(ordered, return_counts=True)
    n = len(ordered)
    if len(distinct) <= _FEW_VALUES:
        drawn = generator.multinomial(n, counts / n, size=resamples)
        return np.asarray(sign * (drawn * distinct).sum(axis=1) / n)
    rows = max(1, _AT_ONCE // n)
    pieces = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return sign * np.concatenate([ordered[generator.integers(n, size=(piece, n))].mean(axis=1) for piece in pieces])


def _mean(values: Values) -> float:
    return math.fsum(values) / len(values)


def _discordant(left: Sequence[float], right: Sequence[float]) -> tuple[int, int] | None:
    """Units only left and only right got right; None where scores are not all nought or the full mark."""
    marks = {*left, *right} - {0.0}
    if len(marks) > 1 or any(mark < 0 for mark in marks):
        return None
    pairs = list(zip(left, right, strict=True))
    return sum(ours > theirs for ours, theirs in pairs), sum(ours < theirs for ours, theirs in pairs)


def mcnemar(only_left: int, only_right: int) -> float:
    """Exact two-sided probability that units which changed, changed as one-sidedly by the toss of a fair coin."""
    n = only_left + only_right
    ways = math.lgamma(n + 1) - n * math.log(2)
    tail = math.fsum(
        math.exp(ways - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(min(only_left, only_right) + 1)
    )
    return min(1.0, 2 * tail)


def benjamini_hochberg(probabilities: Sequence[float]) -> list[float]:
    """Adjusted probabilities that bound the share of false discoveries, in the order given (Benjamini, Hochberg 1995).

    For a table that is searched; ``statistics.holm`` is for one that claims.
    """
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    adjusted = [1.0] * len(probabilities)
    running = 1.0
    for rank, index in enumerate(order):
        running = min(running, probabilities[index] * len(order) / (len(order) - rank))
        adjusted[index] = running
    return adjusted
