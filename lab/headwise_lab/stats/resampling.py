"""How certain a mean of paired differences is: a bootstrap interval, and exact or drawn permutations.

Results depend only on the values, not on their order. Resamples come from a fixed seed, and swapping the two sides
mirrors the results. The distributions and the exact binomial test are scipy's. ``scipy.stats.bootstrap`` and
``scipy.stats.permutation_test`` give the same figures (tests compare them with ours), but they are too slow: the first
takes n * n steps for its jackknife, and the second ten times as long. A whole benchmark has ten thousand questions and
more, a table hundreds of comparisons.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, skew

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 20_061

_EXACT = 13  # with at most so many values other than 0, every choice of signs is tried: at most RESAMPLES choices
_ENOUGH = 10  # no more means are drawn once so many are as extreme as the one found
_MOST = 10  # at most so many times RESAMPLES means are drawn until _ENOUGH are extreme, so that p can be corrected
_EACH = 8  # from so many units per distinct value on, counts are drawn: faster, and the same distribution
_AT_ONCE = 4_000_000  # at most so many numbers are drawn in one piece: 32 MB
_IN_ALL = 500_000_000  # at most so many signs are drawn for one probability, but at least RESAMPLES times every value
_SLACK = 1e-9  # sums that differ by less than this share of the largest value are equal

Values = NDArray[np.float64]


def tidy(values: Values) -> Values:
    """The values, with those that differ only in their last digits made equal."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.round(values / largest, 12) * largest if largest else values


def interval(values: Values, drawn: Values, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """BCa interval of the mean of ``values``; ``drawn`` are their resampled means. Equal values give their mean twice.

    Efron 1987, "Better bootstrap confidence intervals". The acceleration of a mean is the skewness of its values over
    6 sqrt n (section 5), so no jackknife is needed.
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
    means = [ordered[generator.integers(n, size=(rows, n))].mean(axis=1) for rows in _pieces(resamples, n)]
    return sign * np.concatenate(means)


def permutation_probability(values: Values, allowance: float = 0.0, seed: int = SEED) -> float:
    """Two-sided probability of a mean this far from 0 if every value were as likely to have the other sign.

    Fisher 1935, "The Design of Experiments", section 21. Where few values are not 0, all choices of signs are tried.
    Otherwise B choices are drawn, and the probability is (b + 1) / (B + 1) if b of them are as extreme. Where b is
    small, more are drawn, because the correction over a large table multiplies the probability (Besag and Clifford
    1991, "Sequential Monte Carlo p-values").

    ``allowance``: so much of the mean may be an error that is not chance; it is subtracted from every value.
    """
    mean = _mean(values)
    beyond = max(0.0, abs(mean) - allowance)
    moved = tidy(values - math.copysign(abs(mean) - beyond, mean))
    changed = np.sort(np.abs(moved[moved != 0]))
    least = beyond * len(values) - _slack(values) * len(values)
    if len(changed) <= _EXACT:
        return float(np.mean(np.abs(_all_signs(len(changed)) @ changed) >= least))
    return _drawn_probability(changed, least, np.random.default_rng(seed))


def mcnemar(only_left: int, only_right: int) -> float:
    """Exact two-sided probability of so unequal counts if each changed unit were as likely to change the other way.

    McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """
    n = only_left + only_right
    return float(binomtest(only_left, n).pvalue) if n else 1.0


def _all_signs(count: int) -> Values:
    """Every choice of ``count`` signs, one per row."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=count))).reshape(2**count, count)


def _drawn_probability(sizes: Values, least: float, generator: np.random.Generator) -> float:
    """Share of the sums with random signs that are at least ``least`` from 0."""
    rounds = max(1, min(_MOST, _IN_ALL // (RESAMPLES * len(sizes))))
    as_far = drawn = 0
    while as_far < _ENOUGH and drawn < rounds * RESAMPLES:
        as_far += int(np.count_nonzero(np.abs(_sums(sizes, generator)) >= least))
        drawn += RESAMPLES
    return (as_far + 1) / (drawn + 1)


def _sums(sizes: Values, generator: np.random.Generator) -> Values:
    """RESAMPLES sums of the sizes, each with a random sign."""
    distinct, counts = np.unique(sizes, return_counts=True)
    if len(distinct) * _EACH <= len(sizes):
        plus = generator.binomial(counts, 0.5, size=(RESAMPLES, len(counts)))
        return np.asarray((2 * plus - counts) @ distinct)
    pieces = [_coins(rows, len(sizes), generator) @ sizes for rows in _pieces(RESAMPLES, len(sizes))]
    return np.asarray(2 * np.concatenate(pieces) - sizes.sum())


def _coins(rows: int, width: int, generator: np.random.Generator) -> Values:
    """Zeros and ones (rows, width), equally likely."""
    drawn = np.frombuffer(generator.bytes(rows * width // 8 + 1), dtype=np.uint8)
    return np.unpackbits(drawn, count=rows * width).reshape(rows, width).astype(np.float64)


def _pieces(rows: int, width: int) -> list[int]:
    """Sizes of the pieces that ``rows`` are drawn in, so that no piece takes too much memory."""
    most = max(1, _AT_ONCE // max(1, width))
    return [min(most, rows - start) for start in range(0, rows, most)]


def _slack(values: Values) -> float:
    return _SLACK * float(np.abs(values).max(initial=0.0))


def _mean(values: Values) -> float:
    return math.fsum(values) / len(values)
