"""Executors run the trials of a sweep. They are found by name, so that other packages can add their own.

Headwise calls the entry point (group ``headwise.executor``) with the keyword ``workers`` and the options that the user
wrote after the name, and gives the executor trials. The executor reports events: every trial is started and ends, also
where the worker that ran it has died. The sweep does the rest: it writes the store, and its answer to each end says
whether the executor has to run the trial once more, with the workers and models that it has.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import attrs

from headwise.errors import DataError, HeadwiseError, ModelError
from headwise.registry import configured, installed, only
from headwise.text import StrategyText
from headwise_lab.schema.json_object import Json
from headwise_lab.store.outcome_types import Outcome
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.trials import Trial, Work

GROUP = "executor"


@attrs.frozen(kw_only=True)
class AttemptResult:
    """How an attempt at a trial ended: with a record and its outcomes, both in JSON, or refused, or with an error.

    ``again``: whether another attempt may succeed. It cannot where a strategy or the model raised a HeadwiseError.
    """

    record: Json | None = None
    outcomes: Sequence[Json] = ()
    refused: str | None = None
    error: str | None = None
    again: bool = True


@attrs.frozen
class Started:
    """A worker has started a trial."""

    id: str


@attrs.frozen
class Advanced:
    """The worker has answered ``questions`` more questions of the trial."""

    id: str
    questions: int


@attrs.frozen
class Ended:
    """A trial is over."""

    id: str
    result: AttemptResult


Event = Started | Advanced | Ended

Tell = Callable[[Event], bool]
"""Called with every event; for ``Ended`` it returns whether to run the trial once more, for all others False."""


class Runner(Protocol):
    """Runs the trials of one worker; it may keep a model and inputs from one trial to the next."""

    def run(self, trial: Trial, advance: Callable[[int], None]) -> tuple[Record, Sequence[Outcome]]:
        """Record and outcomes of one trial; calls ``advance`` with each number of questions answered. May raise."""
        ...


class Executor(Protocol):
    """Runs trials somewhere."""

    def run(self, work: Work, trials: Sequence[Trial], tell: Tell) -> None:
        """Run trials and report events by ``tell``, from the calling thread; no worker is left running at the end.

        Where ``tell`` returns True for an ``Ended``, the trial waits again, behind the others of its group, and is
        started once more. An exception of ``tell`` ends everything: the store cannot be written to, or the user has
        pressed Ctrl-C.
        """
        ...


def executor(text: str, workers: int | None) -> Executor:
    """The installed executor that ``NAME[:option=value,...]`` names; raises StrategyError for what is unknown."""
    parsed = StrategyText.parse(text)
    entry = only("executor", parsed.name, installed(GROUP), parsed.owner)
    built: Executor = configured("executor", text, entry, workers=workers)
    return built


def at_least_one(_executor: object, _: attrs.Attribute[int | None], workers: int | None) -> None:
    """Validator of ``workers``, which raises DataError for less than 1: for executors that start other processes."""
    if workers is not None and workers < 1:
        raise DataError(f"{workers} workers cannot run anything; give 1 or more")


def needs(package: str, extra: str) -> None:
    """Raise DataError where a package that an executor needs is not installed."""
    if find_spec(package) is None:
        raise DataError(f'{package} is not installed; pip install "headwise[{extra}]"')


class LateRunner:
    """Builds a worker's runner for its first trial, so that an error on the way is the failure of that trial."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._runner: Runner | None = None

    def run(self, trial: Trial, advance: Callable[[int], None]) -> tuple[Record, Sequence[Outcome]]:
        """Record and outcomes of one trial."""
        if self._runner is None:
            module, _, name = self._work.runner.partition(":")
            self._runner = getattr(import_module(module), name)(self._work.terms)
        return self._runner.run(trial, advance)


def attempt(runner: Runner, trial: Trial, advance: Callable[[int], None]) -> AttemptResult:
    """Run a trial once; catches whatever a strategy raises."""
    try:
        record, found = runner.run(trial, advance)
        written, rows = record.to_json(), [row.to_json() for row in found]
        _check(trial, record, [written, *rows])
    except ModelError as error:  # the model lacks something that the method reads
        return AttemptResult(refused=str(error), again=False)
    except Exception as error:
        outcome = AttemptResult(error=last_line(error), again=not isinstance(error, HeadwiseError))
    else:
        return AttemptResult(record=written, outcomes=rows)
    _free()  # only here: inside ``except`` the error still refers to the frames and their tensors
    return outcome


def last_line(error: BaseException) -> str:
    """The last line of a traceback: the error's class and message."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _check(trial: Trial, record: Record, written: Sequence[Json]) -> None:
    """Raise for a record that cannot be written as JSON, or whose id is not that of the planned trial."""
    json.dumps(written, allow_nan=False)
    if record.id != trial.id:
        raise HeadwiseError(
            f"weights, data or versions have changed since the sweep was planned: trial {trial.id} is now"
            f" {record.id}; start the sweep again"
        )


def _free() -> None:
    """Free the memory that a failed trial has left behind: it may have run out of it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
