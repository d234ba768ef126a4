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
"""A difference is called one where its probability, corrected for all comparisons of its table, is at most this."""

FEWEST = 10
"""Below this many units there is no interval, and no difference is called one."""

MCNEMAR, PERMUTATION = "McNemar", "permutation"
BETTER, WORSE, SAME = "better", "worse", "no difference"

_EQUAL = 1e-9  # full marks that differ by a smaller share are the same mark

Unit = TypeVar("Unit")


@attrs.frozen
class Difference:
    """Ours minus theirs over the ``n`` units that both sides have, in the units of the scores.

    ``se`` is the standard error of the mean difference; ``low`` and ``high`` end its 95 % interval, NaN below ten
    units. ``p`` by ``test`` is two-sided; ``discordant``: units only ours and only theirs got right, where all are
    right or wrong. ``left_out``: units that only ours and only theirs has. ``allowance``: by how much the difference
    may be off beside chance, such as by an interpolation, None where nothing says so; the interval is longer by it at
    both ends, and ``p`` is that of what is left of the difference. ``between``: what an interpolated reference lies
    between. ``adjusted``: p after the correction over the ``family`` comparisons of its table.
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
        """Whether it counts: where nothing says how far off the reference is, nothing can be said."""
        return self.allowance is not None

    @property
    def clear(self) -> bool:
        """Whether it is called a difference."""
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
    """Ours minus theirs, tested by itself; None where they share no unit.

    ``ours`` and ``theirs`` map a unit (a question, a pair of MME, a block of tokens) to its score. Units are what is
    resampled, so what hangs together must be one unit.
    """
    shared = [unit for unit in ours if unit in theirs]
    if not shared:
        return None
    gaps = [ours[unit] - theirs[unit] for unit in shared]
    n, (mean, error) = len(gaps), mean_and_error(gaps)
    values = tidy(np.array(gaps, dtype=np.float64))
    low, high = interval(values, resampled_means(values)) if n >= FEWEST else (math.nan, math.nan)
    beside = allowance or 0.0
    changed = None if beside else _discordant([ours[unit] for unit in shared], [theirs[unit] for unit in shared])
    return Difference(
        value=mean,
        se=0.0 if math.isnan(error) else error,
        n=n,
        low=low - beside,
        high=high + beside,
        p=permutation_probability(values, beside) if changed is None else mcnemar(*changed),
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
    """Ours minus theirs on the tokens of one text, paired by blocks of them; None where they share no token.

    Token, named by its position, -> its loss, or whatever else is known of every token. See ``blocks`` for the reason.
    """
    shared = [token for token in ours if token in theirs]
    left, right = (in_blocks({token: side[token] for token in shared}) for side in (ours, theirs))
    return paired(left, right, allowance=allowance, lower_is_better=lower_is_better)


def _discordant(left: Sequence[float], right: Sequence[float]) -> tuple[int, int] | None:
    """Units only left and only right got right; None where scores are not all nought or the full mark."""
    marks = {*left, *right} - {0.0}
    full = max(marks, default=0.0)
    if any(mark <= 0 or full - mark > _EQUAL * full for mark in marks):
        return None
    pairs = [(bool(ours), bool(theirs)) for ours, theirs in zip(left, right, strict=True)]
    return sum(ours > theirs for ours, theirs in pairs), sum(ours < theirs for ours, theirs in pairs)
