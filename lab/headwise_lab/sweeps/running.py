"""Runs plans: trials that are done are skipped, those that fail are recorded and tried again.

Only this process writes the records of its trials. A trial counts as done when its outcomes and its record are stored.
So if the sweep is killed at any time, only the trials that were running are lost, and the same command continues.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from headwise.errors import ContractError, DataError
from headwise_lab.schema.json_schema import structured
from headwise_lab.store.locations import is_local
from headwise_lab.store.outcome_types import Outcome
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_schema import record_of
from headwise_lab.store.record_types import TokenBudget
from headwise_lab.sweeps.display import Display
from headwise_lab.sweeps.executor import Advanced, AttemptResult, Ended, Event, Executor, Started
from headwise_lab.sweeps.folder import SweepProgress, write_plan, write_progress
from headwise_lab.sweeps.plan import Part, Plan, numbered
from headwise_lab.sweeps.tally import Tally
from headwise_lab.sweeps.trials import Trial, Work

OFTEN, SELDOM = 0.5, 10.0
"""Seconds between two writes of the progress that ``headwise status`` reads: to a local folder, and to a URL, where
every write is a request."""


@attrs.frozen(eq=False, kw_only=True)
class Order:
    """A sweep to be run, its plans one after the other. ``retries``: how often a failed trial is tried again.

    ``part`` (i, n): n sweeps share the folder, and this one runs the trials whose number is i modulo n.
    """

    title: str
    plans: Sequence[Plan]
    store: Store
    executor: Executor
    retries: int = 1
    part: Part | None = None


def run(order: Order, display: Display) -> Tally:
    """Run the trials that are missing or failed before; returns how many ended how. The folder must be locked.

    Raises DataError where the store cannot be written to; what it holds stays.
    """
    write_plan(order.store.folder, order.title, numbered(order.plans))
    conductor = _Conductor(order, display)
    with _sigterm_is_ctrl_c(), display:
        try:
            for plan, trials in conductor.missing():
                order.executor.run(_keeping(plan.work, order.store.folder), trials, conductor.hear)
        except SystemExit as error:  # headwise's executors never end the program; one of another package did
            raise ContractError(f"the executor {type(order.executor).__name__} ended the program") from error
        except KeyboardInterrupt:
            display.say(f"Stopped; finished trials are in {order.store.folder}, run the same line again to go on.")
            raise
        finally:
            conductor.note(running=False)
    return conductor.counts


def _keeping(work: Work, folder: Path) -> Work:
    """The work, with the sweep's folder as the place where workers keep answers until their trial is recorded."""
    out = str(folder.absolute()) if is_local(folder) else None
    return attrs.evolve(work, terms=attrs.evolve(work.terms, out=out))


class _Conductor:
    """Receives the executor's events, and writes records, progress and the display."""

    def __init__(self, order: Order, display: Display) -> None:
        self._order, self._display = order, display
        self.counts = Tally()
        self._trials = {trial.id: trial for trial in numbered(order.plans, order.part)}
        self._plans = {trial.id: plan for plan in reversed(order.plans) for trial in plan.trials}
        self._before = {name: record.attempt or 0 for name, record in order.store.records.items()}
        self._attempts = dict.fromkeys(self._trials, 0)  # of this run
        self._running: dict[str, int] = {}  # identity -> questions answered so far
        self._answered, self._begun, self._noted = 0, time.monotonic(), -math.inf
        self._local = is_local(order.store.folder)

    def missing(self) -> list[tuple[Plan, list[Trial]]]:
        """The trials of each plan that have to be run; writes records of those that cannot be run."""
        pending: dict[int, tuple[Plan, list[Trial]]] = {}
        for trial in self._trials.values():
            if self._order.store.done(trial.id):
                self.counts.found += 1
                self._display.found(trial, self._order.store.records[trial.id])
            elif trial.refused:
                self._refuse(trial, trial.refused)
            else:
                plan = self._plans[trial.id]
                pending.setdefault(id(plan), (plan, []))[1].append(trial)
        return list(pending.values())

    def hear(self, event: Event) -> bool:
        """Process an event; returns whether the trial that it ended has to be run once more."""
        trial, again = self._trials[event.id], False
        if isinstance(event, Started):
            self._running[event.id] = 0
            self._display.start(trial)
        elif isinstance(event, Advanced):
            self._running[event.id] += event.questions
            self._display.advance(trial, event.questions)
        else:
            again = self._end(trial, event)
        self.note(force=not isinstance(event, Advanced))
        return again

    def note(self, *, force: bool = False, running: bool = True) -> None:
        """Write the progress for ``headwise status``. An error is ignored: writing the next record will raise it."""
        now = time.monotonic()
        if not running or self._due(now - self._noted, force):
            self._noted = now
            answered = self._answered + sum(self._running.values())
            named = tuple(self._running) if running else ()
            progress = SweepProgress(running=named, questions=answered, seconds=round(now - self._begun, 3))
            with suppress(DataError):
                write_progress(self._order.store.folder, progress, self._order.part)

    def _due(self, passed: float, force: bool) -> bool:
        if self._local:
            return force or passed > OFTEN
        return passed > SELDOM and bool(self._running)  # a progress without a running trial would look like the end

    def _end(self, trial: Trial, event: Ended) -> bool:
        self._running.pop(trial.id, None)
        outcome = event.result
        if outcome.record is not None:
            record = record_of({**outcome.record, "attempt": self._attempt(trial)})
            self._order.store.add(record, [structured(row, Outcome) for row in outcome.outcomes])
            self._answered += trial.questions
            self.counts.ran += 1
            self._display.end(trial, record)
        elif outcome.refused is not None:
            self._refuse(trial, outcome.refused)
        else:
            return self._fail(trial, outcome)
        return False

    def _fail(self, trial: Trial, outcome: AttemptResult) -> bool:
        attempt, head = self._attempt(trial), self._plans[trial.id].head(trial)
        self._order.store.add(attrs.evolve(head, error=outcome.error, attempt=attempt))
        again = outcome.again and self._attempts[trial.id] <= self._order.retries
        self._display.fail(trial, str(outcome.error), again=again)
        self.counts.failed += not again
        return again

    def _refuse(self, trial: Trial, reason: str) -> None:
        """Write a record that says why a trial cannot be run, unless the store has it already."""
        before = self._order.store.records.get(trial.id)
        if before is None or before.refused != reason:
            budget = None if trial.reads_text else TokenBudget(given=_budget(trial))
            self._order.store.add(attrs.evolve(self._plans[trial.id].head(trial), budget=budget, refused=reason))
        self.counts.refused += 1
        self._display.refuse(trial, reason)

    def _attempt(self, trial: Trial) -> int:
        """The number of the attempt that has just ended, counting those of earlier runs."""
        self._attempts[trial.id] += 1
        return self._before.get(trial.id, 0) + self._attempts[trial.id]


def _budget(trial: Trial) -> str:
    """A trial's budget, written as by ``headwise.budget.Budget.text``."""
    if trial.tokens is not None:
        return f"tokens={trial.tokens:g}"
    return "everything" if trial.keep is None else f"keep={trial.keep}"


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt: workers are ended, and finished trials stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
