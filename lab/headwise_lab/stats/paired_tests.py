"""A paired difference with everything a report says of it, and the one rule by which it is called a difference.

The rule: over at least ten units, and with a probability of at most LEVEL after the correction of Benjamini and
Hochberg over all comparisons of its table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from headwise_lab.stats.differences import FEWEST, Difference
from headwise_lab.stats.inference import benjamini_hochberg, compare

LEVEL = 0.05
"""At most this share of the differences that a table calls one is expected to be none."""

MCNEMAR, PERMUTATION = "McNemar", "permutation"
BETTER, WORSE, SAME = "better", "worse", "no difference"


@attrs.frozen
class PairedTest(Difference):
    """A paired difference over the units that both sides have, tested.

    ``low`` and ``high`` end its 95 % interval, NaN below ten units. ``p`` by ``test``; ``discordant``: units only left
    and only right got right, where all are right or wrong. ``left_out``: units that only left and only right has.
    ``allowance``: by how much an interpolated reference may be off, None where nothing says so, and ``between`` what
    it lies between. ``adjusted``: p after the correction over the ``family`` comparisons of its table.
    """

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
    def probability(self) -> float:
        """Two-sided probability of a difference this large where there is none."""
        return self.p

    @property
    def judged(self) -> bool:
        """Whether it counts: against an interpolation of unknown error, nothing can be said."""
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


def paired_test(
    ours: Mapping[Any, float],
    theirs: Mapping[Any, float],
    *,
    allowance: float | None = 0.0,
    between: Sequence[str] = (),
    lower_is_better: bool = False,
) -> PairedTest | None:
    """Ours minus theirs, tested by itself; None where they share no unit."""
    found = compare(ours, theirs, allowance=allowance or 0.0)
    if found is None:
        return None
    return PairedTest(
        value=found.difference,
        se=found.se,
        n=found.n,
        low=found.low,
        high=found.high,
        p=found.probability,
        test=PERMUTATION if found.p_mcnemar is None else MCNEMAR,
        discordant=found.discordant,
        left_out=(len(ours) - found.n, len(theirs) - found.n),
        allowance=allowance,
        between=tuple(between),
        lower_is_better=lower_is_better,
    )


def corrected(found: Sequence[PairedTest | None]) -> list[PairedTest | None]:
    """All comparisons of one table with their adjusted probabilities, in the order given; None stays None."""
    family = [one for one in found if one is not None and one.judged]
    adjusted = iter(benjamini_hochberg([one.p for one in family]))
    return [
        attrs.evolve(one, adjusted=next(adjusted), family=len(family)) if one is not None and one.judged else one
        for one in found
    ]


def family_sentence(found: Sequence[PairedTest | None]) -> str:
    """What the probabilities of a table are adjusted over, and what its comparisons leave out or interpolate."""
    made = [one for one in found if one is not None]
    family = max((one.family for one in made), default=0)
    if not made:
        return ""
    told = [f"p is adjusted over the {family} comparisons of this table (Benjamini-Hochberg, level {LEVEL:g})."]
    unequal = sum(one.left_out != (0, 0) for one in made)
    if unequal:
        told.append(f"{unequal} of them are on the questions that both sides were asked; their n is smaller.")
    between = sum(bool(one.between) for one in made)
    if between:
        told.append(
            f"{between} are against a reference at the same processed average, interpolated between two of its budgets"
            " (~)."
        )
    unknown = sum(not one.judged for one in made)
    if unknown:
        told.append(f"{unknown} are not judged: with so few budgets nothing says how far off the interpolation is.")
    return " ".join(told)
