"""The search itself: optuna asks for points one by one, and any end can be gone on from.

A trial that is running when the process dies stays in the database as it was asked for. The next run takes it up again
with the same parameters, so that it counts once, and gives up on it where the process dies again and again. Samplers
are made anew for every trial from the seed and the trial's number, so that a search that was interrupted goes on as it
would have gone.
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
STARTUP = 10  # random trials, before TPE has something to go by
POPULATION = 12  # of NSGA-II; its usual 50 is more than most searches have trials

STARTED, POINT, RECORDS, REASON = "started", "point", "records", "reason"
"""What the database keeps of a trial, beside its parameters and values."""

LABEL = "label"  # of a point

PATIENCE = 3
"""Times that the process may die while a trial runs, before the trial is given up."""


class Proposed(Protocol):
    """A point, as far as the search is concerned."""

    @property
    def label(self) -> str:
        """The point in a few words."""
        ...

    @property
    def told(self) -> Mapping[str, object]:
        """The point as plain data."""
        ...


@attrs.frozen
class Value:
    """What a point is worth: accuracy, to be large, and cost, to be small; ``records``: what in the store says so."""

    accuracy: float
    cost: float
    records: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Task:
    """What is searched. ``propose`` makes a point of a trial's parameters, ``measure`` finds out what it is worth.

    ``propose`` raises BudgetError or StrategyError for a point that cannot be run. ``measure`` may raise anything:
    BudgetError and ModelError say that the point cannot be run after all, DataError, which would befall every other
    point too, ends the search, and all else is the failure of one trial. ``say`` hears of every trial that is over.
    """

    propose: Callable[[Trial], Proposed]
    measure: Callable[[Any], Value]
    say: Callable[[FrozenTrial], None] = lambda _: None


class _ImpossibleError(Exception):
    """A point that cannot be run, in a sentence."""


def search(memory: Memory, task: Task, total: int, sampler: str, seed: int) -> None:
    """Go on until ``total`` trials are over, those of earlier runs counted. The folder must be locked."""
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
    """The point of a trial in a few words; those that stand for it where it came to none."""
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
    """One trial, from its parameters to what the database says of it."""
    from optuna.trial import TrialState

    started = int(trial.user_attrs.get(STARTED, 0))
    try:
        if started >= PATIENCE:
            raise RuntimeError(f"the process died {started} times while this ran")
        trial.set_user_attr(STARTED, started + 1)
        value = _value(task, trial)
    except (KeyboardInterrupt, DataError):  # not the trial's fault
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
    trial.set_user_attr(POINT, {**point.told, LABEL: point.label})
    try:
        return task.measure(point)
    except (BudgetError, ModelError) as error:
        raise _ImpossibleError(str(error)) from error


def _end(memory: Memory, trial: Trial, reason: str, state: TrialState) -> None:
    trial.set_user_attr(REASON, " ".join(reason.split()))
    memory.study.tell(trial, state=state)
