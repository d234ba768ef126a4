"""What a paired difference is worth: bootstrap intervals, exact and permutation tests, and corrections over a table.

The arithmetic is scipy's. Everything here is deterministic: resamples come from a fixed seed, do not depend on the
order of the units, and are mirrored where left and right change places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, false_discovery_control, skew

from headwise_lab.stats.differences import FEWEST, paired

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 20_061

_EACH = 8  # units per distinct value from which on drawing by counts is faster, which is the same otherwise
_AT_ONCE = 4_000_000  # numbers drawn in one piece: 32 MB
_SLACK = 1e-9  # as a share of the largest value: sums that differ by less are equal

Values = NDArray[np.float64]


@attrs.frozen
class Comparison:
    """Left minus right over the ``n`` units that both have, in the units of the scores.

    ``se`` is that of the paired difference, ``low`` and ``high`` end its confidence interval, both NaN below ten units.
    ``p_bootstrap`` and ``p_permutation`` are two-sided, 1 below ten units. ``p_mcnemar`` and ``discordant``, how many
    units only left and only right got right, are None where scores are not binary.
    """

    n: int
    difference: float
    se: float
    low: float
    high: float
    p_bootstrap: float
    p_mcnemar: float | None = None
    discordant: tuple[int, int] | None = None
    p_permutation: float = 1.0

    @property
    def probability(self) -> float:
        """The exact test's where there is one, else that of the permutations, which is the same for other scores."""
        return self.p_permutation if self.p_mcnemar is None else self.p_mcnemar


def compare(
    left: Mapping[Any, float],
    right: Mapping[Any, float],
    *,
    allowance: float = 0.0,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison | None:
    """Compare two trials unit by unit; None where they share no unit.

    ``left`` and ``right`` map a unit (a question, a pair of MME, a token) to its score. Units are what is resampled, so
    questions that hang together must be one unit.

    Interval: BCa bootstrap (Efron 1987, "Better bootstrap confidence intervals"), seeded. ``p_bootstrap``: resampled
    differences moved to 0, and the share of them at least as large as what was found, (b + 1) / (B + 1) (Efron and
    Tibshirani 1993, section 16.4; Davison and Hinkley 1997, section 4.2). ``p_mcnemar``: where every score is nought or
    one and the same full mark, the exact binomial test on the units that changed (McNemar 1947). ``p_permutation``: the
    share of differences at least as large where left and right change places at random within every unit (Fisher 1935,
    "The Design of Experiments", section 21), of which McNemar's test is the case of binary scores; it keeps its level
    in the tails, which a correction over a table reads, where the bootstrap's is a little too small.

    ``allowance``: by so much the difference may be off beside chance, such as by an interpolation. The interval is
    longer by it at both ends, and the probability is that of what is left of the difference.
    """
    found = paired(left, right)
    if found is None:
        return None
    shared = [key for key in left if key in right]
    values = _tidy(np.array([left[key] - right[key] for key in shared], dtype=np.float64))
    low, high, probability, permuted = math.nan, math.nan, 1.0, 1.0
    if found.n >= FEWEST:
        drawn = resampled_means(values, resamples, seed)
        low, high = interval(values, drawn)
        probability = bootstrap_probability(values, drawn, allowance)
    changed = None if allowance else _discordant([left[key] for key in shared], [right[key] for key in shared])
    exact = None if changed is None else mcnemar(*changed)
    if found.n >= FEWEST:
        permuted = permutation_probability(values, allowance, resamples, seed) if exact is None else exact
    ends = low - allowance, high + allowance
    return Comparison(found.n, found.value, found.se, *ends, probability, exact, changed, permuted)


def _tidy(values: Values) -> Values:
    """Differences that are equal but for their last digits made equal, so that few distinct ones stay few."""
    largest = float(np.abs(values).max())
    return np.round(values / largest, 12) * largest if largest else values


def interval(values: Values, drawn: Values, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """BCa interval of the mean of values, by their resampled means; both ends are the mean where all are equal.

    ``scipy.stats.bootstrap`` gives the same for the same resamples. Its jackknife leaves out every value in turn, which
    takes n * n steps; for a mean the acceleration is the skewness over 6 sqrt n (Efron 1987, section 5).
    """
    mean, n = _mean(values), len(values)
    slack = _slack(values)
    if float(np.abs(values - mean).max()) <= 1e-3 * slack:
        return mean, mean
    below = (np.count_nonzero(drawn < mean - slack) + np.count_nonzero(drawn <= mean + slack)) / 2
    bias = ndtri(min(max(below, 0.5), len(drawn) - 0.5) / len(drawn))
    acceleration = skew(np.sort(values)) / (6 * math.sqrt(n))
    moved = bias + ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(drawn, ndtr(bias + moved / (1 - acceleration * moved)))
    return float(low), float(high)


def bootstrap_probability(values: Values, drawn: Values, allowance: float = 0.0) -> float:
    """Two-sided probability of a mean this far from 0, were the true one 0, by resampled means.

    ``allowance``: so much of the mean may be an error of another kind, and is taken off it towards 0.
    """
    mean = _mean(values)
    beyond = max(0.0, abs(mean) - allowance)
    as_far = np.count_nonzero(np.abs(drawn - mean) >= beyond - _slack(values))
    return float((as_far + 1) / (len(drawn) + 1))


def permutation_probability(
    values: Values, allowance: float = 0.0, resamples: int = RESAMPLES, seed: int = SEED
) -> float:
    """Two-sided probability of a mean this far from 0 where every value might as well have the other sign.

    ``allowance``: so much of the mean may be an error of another kind, and is taken off every value.
    """
    mean = _mean(values)
    beyond = max(0.0, abs(mean) - allowance)
    sizes, counts = np.unique(np.abs(_tidy(values - math.copysign(abs(mean) - beyond, mean))), return_counts=True)
    generator, n = np.random.default_rng(seed), len(values)
    if len(sizes) * _EACH <= n:
        sums = (2 * generator.binomial(counts, 0.5, size=(resamples, len(counts))) - counts) @ sizes
    else:
        rows, every = max(1, _AT_ONCE // n), np.repeat(sizes, counts)
        pieces = [min(rows, resamples - start) for start in range(0, resamples, rows)]
        signs = (generator.integers(2, size=(piece, n), dtype=np.int8) for piece in pieces)
        sums = np.concatenate([(2.0 * sign - 1.0) @ every for sign in signs])
    as_far = np.count_nonzero(np.abs(sums) / n >= beyond - _slack(values))
    return float((as_far + 1) / (resamples + 1))


def _slack(values: Values) -> float:
    return _SLACK * float(np.abs(values).max(initial=0.0))


def resampled_means(values: Values, resamples: int = RESAMPLES, seed: int = SEED) -> Values:
    """Means of ``resamples`` samples with replacement, each as long as ``values``."""
    generator = np.random.default_rng(seed)
    sign = -1.0 if _mean(values) < 0 else 1.0
    ordered = np.sort(sign * values)
    distinct, counts = np.unique(ordered, return_counts=True)
    n = len(ordered)
    if len(distinct) * _EACH <= n:
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
    full = max(marks, default=0.0)
    if any(mark <= 0 or full - mark > _SLACK * full for mark in marks):
        return None
    pairs = [(bool(ours), bool(theirs)) for ours, theirs in zip(left, right, strict=True)]
    return sum(ours > theirs for ours, theirs in pairs), sum(ours < theirs for ours, theirs in pairs)


def mcnemar(only_left: int, only_right: int) -> float:
    """Exact two-sided probability that units which changed, changed as one-sidedly by the toss of a fair coin."""
    n = only_left + only_right
    return float(binomtest(only_left, n).pvalue) if n else 1.0


def benjamini_hochberg(probabilities: Sequence[float]) -> list[float]:
    """Adjusted probabilities that bound the share of false discoveries, in the order given (Benjamini, Hochberg 1995).

    For the tables of a report; ``statistics.holm`` is stricter, and serves tables with a few claims.
    """
    return [float(value) for value in false_discovery_control(probabilities)] if probabilities else []
