"""What runs trials: a small protocol, found by name, so that other packages can bring theirs.

An executor is built by its entry point (group ``headwise.executor``) with the keyword ``workers``, and gets trials to
run. It tells what happens, and every trial it is given ends exactly once, whatever befalls the worker that had it. The
sweep does the rest: it writes the store, and gives what failed to the executor again.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import attrs

from headwise.errors import HeadwiseError, ModelError
from headwise.registry import installed, load, only
from headwise_lab.sweeps.trials import Trial, Work

GROUP = "executor"


@attrs.frozen(kw_only=True)
class Outcome:
    """How a trial ended: with a record and its outcomes, refused, or with an error.

    ``again``: whether another attempt may end better. What a strategy or the model refuses in a sentence of its own
    will be refused again.
    """

    record: Mapping[str, Any] | None = None
    outcomes: Sequence[Mapping[str, Any]] = ()
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


class Runner(Protocol):
    """What a worker has trials run by; it may keep a model and inputs from one trial to the next."""

    def run(
        self, trial: Trial, advance: Callable[[int], None]
    ) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        """Record and outcomes of one trial; ``advance`` hears of every question answered. May raise anything."""
        ...


class Executor(Protocol):
    """Runs trials somewhere."""

    def run(self, work: Work, trials: Sequence[Trial], tell: Callable[[Event], None]) -> None:
        """Run trials and tell what happens, from the thread that called; leaves nothing running, however it ends.

        What ``tell`` raises ends it: the store cannot be written to, or the user has had enough.
        """
        ...


def executor(name: str, workers: int | None) -> Executor:
    """The installed executor ``name``; raises StrategyError for none or several of that name."""
    built: Executor = load(only("executor", name, installed(GROUP)))(workers=workers)
    return built


class LateRunner:
    """The runner of a worker, built for its first trial, so that what stands in the way is the failure of a trial."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._runner: Runner | None = None

    def run(
        self, trial: Trial, advance: Callable[[int], None]
    ) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        """Record and outcomes of one trial."""
        if self._runner is None:
            module, _, name = self._work.runner.partition(":")
            self._runner = getattr(import_module(module), name)(self._work.terms)
        return self._runner.run(trial, advance)


def attempt(runner: Runner, trial: Trial, advance: Callable[[int], None]) -> Outcome:
    """Run a trial once, whatever a third party's strategy may raise."""
    try:
        record, outcomes = runner.run(trial, advance)
        _check(trial, record, outcomes)
    except ModelError as error:  # the model lacks what the method looks at
        return Outcome(refused=str(error), again=False)
    except Exception as error:
        outcome = Outcome(error=last_line(error), again=not isinstance(error, HeadwiseError))
    else:
        return Outcome(record=record, outcomes=outcomes)
    _free()  # only here, when the error no longer holds the frames and their tensors
    return outcome


def last_line(error: BaseException) -> str:
    """The last line of a traceback: the error's class and what it says."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _check(trial: Trial, record: Mapping[str, Any], outcomes: Sequence[Mapping[str, Any]]) -> None:
    """Raise for a record that cannot be written, or that belongs to another trial than the one that was planned."""
    json.dumps([record, *outcomes], allow_nan=False)
    if record["id"] != trial.id:
        raise HeadwiseError(
            f"weights, data or versions have changed since the sweep was planned: trial {trial.id} is now"
            f" {record['id']}; start the sweep again"
        )


def _free() -> None:
    """Give back what a failed trial, maybe out of memory, has left behind."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
