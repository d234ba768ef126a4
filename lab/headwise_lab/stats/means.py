"""Means and perplexities with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (sample deviation over sqrt n); the error of a single value is unknown, NaN."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)


def perplexity(nll: float, se: float) -> tuple[float, float]:
    """exp of a mean loss, with its standard error by the delta method. A difference of losses gives a ratio."""
    value = math.exp(nll)
    return value, value * se
