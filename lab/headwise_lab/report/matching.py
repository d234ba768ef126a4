"""Comparing at equal budgets: the reference of a trial is taken at the trial's own processed average.

The budget of a trial is the average of visual tokens that its layers process, however the budget was given. What a
method itself reports is not used, because it may leave out merged tokens. Where the reference was not run at a budget,
each unit is interpolated between the two neighbouring budgets, linearly in log2 of the processed average. Outside its
budgets there is no reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs

from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import Difference, paired
from headwise_lab.stats.interpolation import interpolation_error, place

Unit = TypeVar("Unit")

TOLERANCE = 1.0
"""Processed averages at most one token apart are one budget, because methods keep whole tokens only."""


def same_budget(ours: Trial, theirs: Trial) -> bool:
    """Whether two trials may be compared without interpolation.

    Trials that do not say how many tokens they process have the same budget if it was given in the same words.
    """
    if not (ours.processed and theirs.processed):
        return ours.processed == theirs.processed and ours.given == theirs.given
    return abs(ours.processed - theirs.processed) <= TOLERANCE


@attrs.frozen(eq=False)
class MatchedReference:
    """A reference at one budget: unit -> score. ``between``: the two budgets between which it was interpolated, if so.

    ``allowance``: how far off it may be, in the units of the scores; 0 if it was run, None if that is unknown.
    """

    units: Mapping[Any, float]
    between: tuple[str, ...] = ()
    allowance: float | None = 0.0


@attrs.frozen(eq=False)
class ReferenceCurve:
    """The trials of a reference by ascending processed average; the unpruned model is the last one, if it was run."""

    trials: tuple[Trial, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], unpruned: Trial | None = None) -> ReferenceCurve:
        """The curve of the trials that have outcomes. At the largest budget every method is the unpruned model."""
        found = [trial for trial in (*trials, unpruned) if trial is not None and trial.units]
        return cls(tuple(sorted(found, key=lambda trial: trial.processed)))

    def at(self, trial: Trial) -> MatchedReference | None:
        """The reference at the budget of a trial; None where it was run neither there nor on both sides of it.

        Of several at this budget, one that was given in the same words is taken, else the nearest.
        """
        same = [other for other in self.trials if same_budget(trial, other)]
        if same:
            nearest = min(same, key=lambda one: (one.given != trial.given, abs(one.processed - trial.processed)))
            return MatchedReference(nearest.units or {})
        return self._between(trial.processed)

    def _between(self, processed: float) -> MatchedReference | None:
        known = list({trial.processed: trial for trial in self.trials if trial.processed > 0}.values())
        budgets = [trial.processed for trial in known]
        found = place(budgets, processed) if processed > 0 else None
        if found is None:
            return None
        low, high = known[found.left], known[found.right]
        units = interpolated(low.units or {}, high.units or {}, found.share)
        means = [math.fsum((trial.units or {}).values()) / len(trial.units or {}) for trial in known]
        error = interpolation_error(budgets, means, found)
        return MatchedReference(units, (low.budget, high.budget), error) if units else None


def interpolated(low: Mapping[Unit, float], high: Mapping[Unit, float], share: float) -> dict[Unit, float]:
    """Unit -> the value at ``share`` of the way from low to high, for the units that both have."""
    return {unit: (1 - share) * value + share * high[unit] for unit, value in low.items() if unit in high}


def against(trial: Trial, reference: MatchedReference | None) -> Difference | None:
    """The paired difference of a trial to its reference; None without a reference or without outcomes."""
    if reference is None or not trial.units:
        return None
    return paired(trial.units, reference.units, allowance=reference.allowance, between=reference.between)
