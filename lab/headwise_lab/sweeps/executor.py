"""What runs trials: a small protocol, found by name, so that other packages can bring theirs.

An executor is built by its entry point (group ``headwise.executor``) with the keyword ``workers`` and the options that
the user wrote behind its name, and gets trials to run. It tells what happens: every trial is started and ends, whatever
befalls the worker that had it. The sweep does the rest: it writes the store, and answers each end with whether the
trial is to be run once more, by the workers there are and with the models they have.
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
from headwise_lab.store.outcome_types import Outcome as Row
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.trials import Trial, Work

GROUP = "executor"


@attrs.frozen(kw_only=True)
class Outcome:
    """How a trial ended: with a record and its outcomes, both in JSON, refused, or with an error.

    ``again``: whether another attempt may end better. What a strategy or the model refuses in a sentence of its own
    will be refused again.
    """

    record: Json | None = None
    outcomes: Sequence[Json] = ()
    refused: str | None = None
    error: str | None = None
    again: bool = True


@attrs.frozen
class Started:
    """A worker has begun with a trial."""

    id: str


@attrs.frozen
class Advanced:
    """So many more questions of a trial are answered."""

    id: str
    questions: int


@attrs.frozen
class Ended:
    """A trial is over."""

    id: str
    outcome: Outcome


Event = Started | Advanced | Ended

Tell = Callable[[Event], bool]
"""Hears events; its answer to ``Ended`` is whether the trial is to be run once more, and False to all others."""


class Runner(Protocol):
    """What a worker has trials run by; it may keep a model and inputs from one trial to the next."""

    def run(self, trial: Trial, advance: Callable[[int], None]) -> tuple[Record, Sequence[Row]]:
        """Record and outcomes of one trial; ``advance`` hears of every question answered. May raise anything."""
        ...


class Executor(Protocol):
    """Runs trials somewhere."""

    def run(self, work: Work, trials: Sequence[Trial], tell: Tell) -> None:
        """Run trials and tell what happens, from the thread that called; leaves nothing running, however it ends.

        A trial whose ``Ended`` is answered with True waits again, behind the others of its group, and is started and
        ended once more. What ``tell`` raises ends it all: the store cannot be written to, or the user has had enough.
        """
        ...


def executor(text: str, workers: int | None) -> Executor:
    """The installed executor of a text ``NAME[:option=value,...]``; raises StrategyError for what it does not know."""
    parsed = StrategyText.parse(text)
    entry = only("executor", parsed.name, installed(GROUP), parsed.owner)
    built: Executor = configured("executor", text, entry, workers=workers)
    return built


def at_least_one(_executor: object, _: attrs.Attribute[int | None], workers: int | None) -> None:
    """Validator of ``workers`` where this process is none of them; raises DataError."""
    if workers is not None and workers < 1:
        raise DataError(f"{workers} workers cannot run anything; give 1 or more")


def needs(package: str, extra: str) -> None:
    """Raise DataError where the package that an executor is built on is not installed."""
    if find_spec(package) is None:
        raise DataError(f'{package} is not installed; pip install "headwise[{extra}]"')


class LateRunner:
    """The runner of a worker, built for its first trial, so that what stands in the way is the failure of a trial."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._runner: Runner | None = None

    def run(self, trial: Trial, advance: Callable[[int], None]) -> tuple[Record, Sequence[Row]]:
        """Record and outcomes of one trial."""
        if self._runner is None:
            module, _, name = self._work.runner.partition(":")
            self._runner = getattr(import_module(module), name)(self._work.terms)
        return self._runner.run(trial, advance)


def attempt(runner: Runner, trial: Trial, advance: Callable[[int], None]) -> Outcome:
    """Run a trial once, whatever a third party's strategy may raise."""
    try:
        record, found = runner.run(trial, advance)
        told, rows = record.to_json(), [row.to_json() for row in found]
        _check(trial, record, [told, *rows])
    except ModelError as error:  # the model lacks what the method looks at
        return Outcome(refused=str(error), again=False)
    except Exception as error:
        outcome = Outcome(error=last_line(error), again=not isinstance(error, HeadwiseError))
    else:
        return Outcome(record=told, outcomes=rows)
    _free()  # only here, when the error no longer holds the frames and their tensors
    return outcome


def last_line(error: BaseException) -> str:
    """The last line of a traceback: the error's class and what it says."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _check(trial: Trial, record: Record, told: Sequence[Json]) -> None:
    """Raise for a record that cannot be written, or that belongs to another trial than the one that was planned."""
    json.dumps(told, allow_nan=False)
    if record.id != trial.id:
        raise HeadwiseError(
            f"weights, data or versions have changed since the sweep was planned: trial {trial.id} is now"
            f" {record.id}; start the sweep again"
        )


def _free() -> None:
    """Give back what a failed trial, maybe out of memory, has left behind."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
