"""Slow head-count rules in exact fractions, written from the published description, with thresholds squared.

``x > mean + c * std`` is decided without a root: x - mean against c * std, by sign and square.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def _mean(values: Sequence[Fraction]) -> Fraction:
    return sum(values, Fraction(0)) / len(values)


def _variance(values: Sequence[Fraction]) -> Fraction:
    mean = _mean(values)
    return sum(((value - mean) ** 2 for value in values), Fraction(0)) / (len(values) - 1)


def _above(value: Fraction, values: Sequence[Fraction], deviations: Fraction) -> bool:
    """Whether value > mean + deviations * standard deviation (ddof=1), exactly."""
    left, right = value - _mean(values), deviations * deviations * _variance(values)
    if right == 0:
        return left > 0
    if deviations > 0:
        return left > 0 and left * left > right
    return left >= 0 or left * left < right


def gap(scores: Sequence[Fraction], high: int) -> int:
    ranked = sorted(scores, reverse=True)
    if len(ranked) <= 3:
        return len(ranked)
    gaps = [ranked[i] - ranked[i + 1] for i in range(len(ranked) - 1)]
    for i in range(len(gaps)):
        if _above(gaps[i], gaps, Fraction(4, 5)):
            return i + 1
    return high


def quality(scores: Sequence[Fraction]) -> int:
    if len(scores) == 1:
        return 1
    return len([score for score in scores if _above(score, scores, Fraction(-3, 10))])


def contribution(scores: Sequence[Fraction]) -> int:
    lowest = min(scores)
    positive = [score - lowest for score in scores] if lowest < 0 else list(scores)
    if sum(positive) == 0:
        return len(scores)
    held, count = Fraction(0), 0
    for score in sorted(positive, reverse=True):
        held += score / sum(positive)
        if held <= Fraction(17, 20):
            count += 1
    return count + 1


def clamped(count: int, low: int | None, high: int | None, available: int) -> int:
    count = max(count, 1 if low is None else low)
    count = min(count, available if high is None else high)
    return max(1, min(count, available))


def median(scores: Sequence[Fraction], low: int | None, high: int | None) -> int:
    """Median of the three counts as they come, clamped only at the end."""
    counts = [gap(scores, high or len(scores)), quality(scores), contribution(scores)]
    return clamped(sorted(counts)[1], low, high, len(scores))
