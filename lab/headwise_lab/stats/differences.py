"""Paired differences and what may be said about them: means, standard errors, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

CLEAR = 2.0
"""A difference is called one from this many standard errors on."""

LEVEL = math.erfc(CLEAR / math.sqrt(2))
"""The two-sided probability of CLEAR standard errors by chance, 0.0455: what Holm's correction is held against."""

FEWEST = 10
"""Below this many pairs a standard error says too little, and no difference is called one."""


@attrs.frozen
class Difference:
    """A mean difference over ``n`` pairs with its standard error, in the units of the scores."""

    value: float
    se: float
    n: int

    @property
    def errors(self) -> float:
        """The difference in standard errors; infinite where all pairs differ alike, 0 where none does."""
        if self.value == 0:
            return 0.0
        return self.value / self.se if self.se > 0 else math.copysign(math.inf, self.value)

    @property
    def clear(self) -> bool:
        """Whether it is at least two standard errors over enough pairs."""
        return self.n >= FEWEST and abs(self.errors) >= CLEAR

    @property
    def probability(self) -> float:
        """Two-sided probability of a difference this large where there is none (normal approximation)."""
        return math.erfc(abs(self.errors) / math.sqrt(2)) if self.n >= FEWEST else 1.0


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (sample deviation over sqrt n); the error of a single value is unknown, NaN."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, math.nan
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)


def paired(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> Difference | None:
    """Mean of ours - theirs over the units both have, or None where they share none."""
    shared = [key for key in ours if key in theirs]
    if not shared:
        return None
    mean, error = mean_and_error([ours[key] - theirs[key] for key in shared])
    return Difference(mean, 0.0 if math.isnan(error) else error, len(shared))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted probabilities, in the order given (Holm 1979)."""
    order = sorted(range(len(probabilities)), key=lambda index: probabilities[index])
    adjusted = [1.0] * len(probabilities)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * probabilities[index]))
        adjusted[index] = running
    return adjusted
