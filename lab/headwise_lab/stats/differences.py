"""A paired difference with everything a report says of it: mean, error, interval, probability and verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import attrs
import numpy as np

from headwise_lab.stats.blocks import in_blocks
from headwise_lab.stats.means import mean_and_error
from headwise_lab.stats.resampling import interval, mcnemar, permutation_probability, resampled_means, tidy

LEVEL = 0.05
"""A difference counts where its probability, corrected for all comparisons of its table, is at most this."""

FEWEST = 10
"""With fewer units there is no interval, and no difference counts."""

MCNEMAR, PERMUTATION = "McNemar", "permutation"
BETTER, WORSE, SAME = "better", "worse", "no difference"

_EQUAL = 1e-9  # scores whose relative difference is smaller are equal

Unit = TypeVar("Unit")


@attrs.frozen
class Difference:
    """Ours minus theirs over the ``n`` units that both sides have, in the units of the scores.

    ``se``: standard error of the mean difference. ``low``, ``high``: ends of its 95 % interval, NaN below ten units.
    ``p``: two-sided probability by ``test``. ``discordant``: how many units only ours got right, and only theirs; None
    unless every unit is right or wrong. ``left_out``: how many units only ours has, and only theirs. ``allowance``: the
    largest error that is not chance, such as that of an interpolation; None where it is unknown. The interval is longer
    by it at both ends, and ``p`` tests the difference reduced by it. ``between``: the references between which theirs
    was interpolated. ``adjusted``: p after the correction over the ``family`` comparisons of its table.
    """

    value: float
    se: float
    n: int
    low: float = math.nan
    high: float = math.nan
    p: float = 1.0
    test: str = PERMUTATION
    discordant: tuple[int, int] | None = None
    left_out: tuple[int, int] = (0, 0)
    allowance: float | None = 0.0
    between: tuple[str, ...] = ()
    adjusted: float | None = None
    family: int = 0
    lower_is_better: bool = False

    @property
    def judged(self) -> bool:
        """Whether it has a verdict: there is none where the error of the reference is unknown."""
        return self.allowance is not None

    @property
    def clear(self) -> bool:
        """Whether the difference counts."""
        decided = self.p if self.adjusted is None else self.adjusted
        return self.judged and self.n >= FEWEST and self.value != 0 and decided <= LEVEL

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference``; empty where it is not judged."""
        if not self.judged:
            return ""
        if not self.clear:
            return SAME
        return BETTER if (self.value > 0) != self.lower_is_better else WORSE

    @property
    def seems(self) -> str:
        """The verdict of this comparison alone, before the correction."""
        return attrs.evolve(self, adjusted=None).verdict


def paired(
    ours: Mapping[Unit, float],
    theirs: Mapping[Unit, float],
    *,
    allowance: float | None = 0.0,
    between: Sequence[str] = (),
    lower_is_better: bool = False,
) -> Difference | None:
    """Ours minus theirs, tested without a correction; None where they share no unit.

    ``ours`` and ``theirs`` map a unit (a question, a pair of MME, a block of tokens) to its score. Units are resampled,
    so observations that depend on each other must be one unit.
    """
    shared = [unit for unit in ours if unit in theirs]
    if not shared:
        return None
    gaps = [ours[unit] - theirs[unit] for unit in shared]
    n, (mean, error) = len(gaps), mean_and_error(gaps)
    values = tidy(np.array(gaps, dtype=np.float64))
    low, high = interval(values, resampled_means(values)) if n >= FEWEST else (math.nan, math.nan)
    margin = allowance or 0.0
    changed = None if margin else _discordant([ours[unit] for unit in shared], [theirs[unit] for unit in shared])
    return Difference(
        value=mean,
        se=0.0 if math.isnan(error) else error,
        n=n,
        low=low - margin,
        high=high + margin,
        p=permutation_probability(values, margin) if changed is None else mcnemar(*changed),
        test=PERMUTATION if changed is None else MCNEMAR,
        discordant=changed,
        left_out=(len(ours) - n, len(theirs) - n),
        allowance=allowance,
        between=tuple(between),
        lower_is_better=lower_is_better,
    )


def paired_losses(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    *,
    allowance: float | None = 0.0,
    lower_is_better: bool = True,
) -> Difference | None:
    """Ours minus theirs on the tokens of one text, paired by blocks of tokens; None where they share no token.

    ``ours`` and ``theirs`` map a token, named by its position, to its loss or another value. ``stats.blocks`` says why
    blocks are the units.
    """
    shared = [token for token in ours if token in theirs]
    left, right = (in_blocks({token: side[token] for token in shared}) for side in (ours, theirs))
    return paired(left, right, allowance=allowance, lower_is_better=lower_is_better)


def _discordant(left: Sequence[float], right: Sequence[float]) -> tuple[int, int] | None:
    """How many units only left got right, and only right; None unless every score is 0 or the same full score."""
    marks = {*left, *right} - {0.0}
    full = max(marks, default=0.0)
    if any(mark <= 0 or full - mark > _EQUAL * full for mark in marks):
        return None
    pairs = [(bool(ours), bool(theirs)) for ours, theirs in zip(left, right, strict=True)]
    return sum(ours > theirs for ours, theirs in pairs), sum(ours < theirs for ours, theirs in pairs)
