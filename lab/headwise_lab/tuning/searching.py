"""The search: optuna proposes points one after the other. An interrupted search can be continued.

If the process dies during a trial, the trial and its parameters stay in the database. The next run continues this trial
with the same parameters, so that it counts once; if the process dies PATIENCE times in the same trial, the trial is
given up. Every trial has a new sampler, made from the seed and the trial's number, so that a continued search finds the
same points as one without interruption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from headwise.errors import BudgetError, DataError, ModelError, StrategyError
from headwise_lab.tuning.database import Memory

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState

SAMPLERS = ("tpe", "nsga2", "random")
STARTUP = 10  # random trials before TPE begins
POPULATION = 12  # for NSGA-II; optuna's default of 50 exceeds the trials of most searches

STARTED, POINT, RECORDS, REASON = "started", "point", "records", "reason"
"""Attributes of a trial in the database, beside its parameters and values."""

LABEL = "label"  # of a point

PATIENCE = 3
"""Times that the process may die while a trial runs, before the trial is given up."""


class Proposed(Protocol):
    """What the search needs of a point."""

    @property
    def label(self) -> str:
        """The point in a few words."""
        ...

    @property
    def as_data(self) -> Mapping[str, object]:
        """The point as JSON data."""
        ...


@attrs.frozen
class Value:
    """The value of a point: its accuracy, its cost, and the ids of the ``records`` in the store that they come from."""

    accuracy: float
    cost: float
    records: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Task:
    """``propose`` makes a point of a trial's parameters, ``measure`` returns its value, ``say`` gets ended trials.

    ``propose`` raises BudgetError or StrategyError for a point that cannot be run. ``measure`` may raise anything:
    BudgetError and ModelError mean that the point cannot be run; DataError, which every other point would raise too,
    ends the search; any other exception is the failure of this trial.
    """

    propose: Callable[[Trial], Proposed]
    measure: Callable[[Any], Value]
    say: Callable[[FrozenTrial], None] = lambda _: None


class _ImpossibleError(Exception):
    """A point cannot be run; the message says why."""


def search(memory: Memory, task: Task, total: int, sampler: str, seed: int) -> None:
    """Run trials until ``total`` have ended, counting those of earlier runs. The folder must be locked."""
    while True:
        trials = memory.trials
        if sum(trial.state.is_finished() for trial in trials) >= total:
            return
        left = [trial for trial in trials if not trial.state.is_finished()]
        number = left[0].number if left else len(trials)
        memory.study.sampler = made(sampler, seed, number)
        _run(memory, task, memory.taken_up(left[0]) if left else memory.study.ask())
        task.say(memory.trials[number])


def label(trial: FrozenTrial) -> str:
    """The point of a trial in a few words; ``no point`` where none could be made."""
    return str(trial.user_attrs.get(POINT, {}).get(LABEL, "no point"))


def made(sampler: str, seed: int, number: int) -> BaseSampler:
    """The sampler of one trial."""
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    own = int.from_bytes(hashlib.sha256(f"headwise tune {seed} {number}".encode()).digest()[:4], "big")
    if sampler == "random":
        return RandomSampler(seed=own)
    if sampler == "nsga2":
        return NSGAIISampler(seed=own, population_size=POPULATION)
    return TPESampler(seed=own, n_startup_trials=STARTUP)


def _run(memory: Memory, task: Task, trial: Trial) -> None:
    """Run one trial and write its value, or why it has none, into the database."""
    from optuna.trial import TrialState

    started = int(trial.user_attrs.get(STARTED, 0))
    try:
        if started >= PATIENCE:
            raise RuntimeError(f"the process died {started} times while this ran")
        trial.set_user_attr(STARTED, started + 1)
        value = _value(task, trial)
    except (KeyboardInterrupt, DataError):  # not a failure of this trial
        trial.set_user_attr(STARTED, started)
        raise
    except _ImpossibleError as error:
        _end(memory, trial, str(error), TrialState.PRUNED)
    except Exception as error:
        _end(memory, trial, f"{type(error).__name__}: {error}", TrialState.FAIL)
    else:
        trial.set_user_attr(RECORDS, list(value.records))
        memory.study.tell(trial, [value.accuracy, value.cost])


def _value(task: Task, trial: Trial) -> Value:
    try:
        point = task.propose(trial)
    except (BudgetError, StrategyError) as error:
        raise _ImpossibleError(str(error)) from error
    trial.set_user_attr(POINT, {**point.as_data, LABEL: point.label})
    try:
        return task.measure(point)
    except (BudgetError, ModelError) as error:
        raise _ImpossibleError(str(error)) from error


def _end(memory: Memory, trial: Trial, reason: str, state: TrialState) -> None:
    trial.set_user_attr(REASON, " ".join(reason.split()))
    memory.study.tell(trial, state=state)
