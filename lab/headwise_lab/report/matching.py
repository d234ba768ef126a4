"""Comparing at equal budgets: a reference at the processed average of what is held against it.

Visual tokens processed per layer on average are what a budget is worth, however it was given; tokens as a method itself
reports them, merged ones left out, do not count. Where the reference was not run at a budget, it is interpolated unit
by unit between its two neighbouring budgets, linearly in log2 of the processed average; outside them there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from headwise_lab.report.trials import Trial
from headwise_lab.stats.interpolation import interpolation_error, place

TOLERANCE = 1.0
"""Processed averages that differ by at most one token per layer are one budget: methods keep whole tokens only."""


def same_budget(ours: Trial, theirs: Trial) -> bool:
    """Whether two trials may be compared as they are; those that do not say what they process, if asked for the same.

    Two budgets of one method a token apart are two budgets, and one asked for in the same words is closer.
    """
    if not (ours.processed and theirs.processed):
        return ours.processed == theirs.processed and ours.given == theirs.given
    return abs(ours.processed - theirs.processed) <= TOLERANCE


@attrs.frozen(eq=False)
class MatchedReference:
    """A reference at some budget: unit -> score, and if it had to be interpolated, what between and how far off.

    ``allowance`` in the units of the scores, 0 for a trial that was run, None where nothing says how far off it may be.
    """

    units: Mapping[Any, float]
    between: tuple[str, ...] = ()
    allowance: float | None = 0.0


@attrs.frozen(eq=False)
class ReferenceCurve:
    """A reference's trials, ascending by processed average; the unpruned model, where it was run, ends the curve."""

    trials: tuple[Trial, ...]

    @classmethod
    def of(cls, trials: Sequence[Trial], unpruned: Trial | None = None) -> ReferenceCurve:
        """The curve of the trials that have outcomes; a method that keeps every token is the unpruned model."""
        found = [trial for trial in (*trials, unpruned) if trial is not None and trial.units]
        return cls(tuple(sorted(found, key=lambda trial: trial.processed)))

    def at(self, trial: Trial) -> MatchedReference | None:
        """The reference at the budget of a trial; None where it was run neither there nor on both sides of it."""
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
        less, more = low.units or {}, high.units or {}
        units = {unit: (1 - found.share) * less[unit] + found.share * more[unit] for unit in less if unit in more}
        means = [math.fsum((trial.units or {}).values()) / len(trial.units or {}) for trial in known]
        return (
            MatchedReference(units, (low.budget, high.budget), interpolation_error(budgets, means, found))
            if units
            else None
        )
