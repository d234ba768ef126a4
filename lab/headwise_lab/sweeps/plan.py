"""A plan: the trials that one kind of worker runs, in order, and the part of their records that is known before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from headwise.errors import BudgetError, DataError
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.trials import Trial, Work

Head = Callable[[], Record]
"""Returns the part of a trial's record that is known before it is run."""

Part = tuple[int, int]
"""(i, n): one of n sweeps in the same folder; it runs the trials whose number is i modulo n."""


@attrs.frozen(eq=False)
class Plan:
    """Trials in the order they run, the work that runs them, and ``remarks``: sentences about them for the user.

    ``heads``: id of a trial -> a function that returns the part of its record that is known before it is run.
    """

    title: str
    work: Work
    trials: tuple[Trial, ...]
    heads: Mapping[str, Head]
    remarks: tuple[str, ...] = ()

    def head(self, trial: Trial) -> Record:
        """The record of a trial without a result."""
        return self.heads[trial.id]()


def plan_of(title: str, work: Work, found: Iterable[tuple[Trial, Head]], remarks: Sequence[str] = ()) -> Plan:
    """The plan of trials with their heads; of several trials with the same id it takes the first."""
    trials: dict[str, Trial] = {}
    heads: dict[str, Head] = {}
    for trial, head in found:
        if trial.id not in trials:
            trials[trial.id], heads[trial.id] = trial, head
    return Plan(title, work, tuple(trials.values()), heads, tuple(dict.fromkeys(remarks)))


def check_any_left(plans: Sequence[Plan]) -> None:
    """Raise BudgetError with the first reason where no trial that prunes can be run, DataError without any trial."""
    trials = numbered(plans)
    reasons = [trial.refused for trial in trials if trial.refused]
    if reasons and not any(trial.prunes and trial.refused is None for trial in trials):
        raise BudgetError(reasons[0])
    if not trials:
        raise DataError("the sweep has no trial; give recipes, grids, or unpruned = true")


def numbered(plans: Sequence[Plan], part: Part | None = None) -> list[Trial]:
    """The trials of all plans, each once; with ``part``, only those whose number, counted from 1, belongs to it."""
    listed = list({trial.id: trial for plan in plans for trial in plan.trials}.values())
    if part is None:
        return listed
    mine, parts = part
    return [trial for number, trial in enumerate(listed, 1) if number % parts == mine % parts]
