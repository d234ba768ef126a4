"""Having a plan run: what is done is skipped, what fails is recorded and tried again, and any end can be gone on from.

This process alone writes the store. A trial counts as done when its outcomes and its record are there, so whatever is
killed, and whenever, costs the trials that were running and nothing else.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from headwise_lab.store import Store
from headwise_lab.sweeps.display import Display
from headwise_lab.sweeps.executor import Advanced, Ended, Event, Executor, Outcome, Started
from headwise_lab.sweeps.folder import Progress, write_plan, write_progress
from headwise_lab.sweeps.trials import Trial, Work
from headwise_lab.tally import Tally

OFTEN = 0.5
"""Seconds between two notes of what is running, which ``headwise status`` reads."""


@attrs.frozen(eq=False, kw_only=True)
class Order:
    """A sweep about to be run. ``head`` gives what a record says of a trial that had no result."""

    title: str
    trials: Sequence[Trial]
    work: Work
    head: Callable[[Trial], Mapping[str, Any]]
    store: Store
    executor: Executor
    retries: int = 1


def run(order: Order, display: Display) -> Tally:
    """Run what is missing, and what failed again; returns what became of the trials. The folder must be locked."""
    write_plan(order.store.folder, order.title, order.trials)
    conductor = _Conductor(order, display)
    with _sigterm_is_ctrl_c(), display:
        try:
            pending = conductor.missing()
            for left in reversed(range(order.retries + 1)):
                if pending:
                    pending = conductor.round(pending, last=not left)
        except KeyboardInterrupt:
            display.say(f"Stopped; finished trials are in {order.store.folder}, run the same line again to go on.")
            raise
        finally:
            conductor.note(force=True, running=False)
    return conductor.counts


class _Conductor:
    """Hears what happens to trials, and writes it down."""

    def __init__(self, order: Order, display: Display) -> None:
        self._order, self._display = order, display
        self.counts = Tally()
        self._trials = {trial.id: trial for trial in order.trials}
        self._attempts = {name: int(record.get("attempt") or 0) for name, record in order.store.records.items()}
        self._running: dict[str, int] = {}  # identity -> questions answered so far
        self._again: list[Trial] = []
        self._last = False
        self._answered, self._begun, self._noted = 0, time.monotonic(), 0.0

    def missing(self) -> list[Trial]:
        """Trials that are to be run; those that cannot be are put on record."""
        pending = []
        for trial in self._order.trials:
            if self._order.store.done(trial.id):
                self.counts.found += 1
                self._display.found(trial, self._order.store.records[trial.id])
            elif trial.refused:
                self._refuse(trial, trial.refused)
            else:
                pending.append(trial)
        return pending

    def round(self, trials: Sequence[Trial], *, last: bool) -> list[Trial]:
        """One attempt of every trial; returns those to be tried again."""
        self._again, self._last = [], last
        self._order.executor.run(self._order.work, trials, self._hear)
        return self._again

    def note(self, *, force: bool = False, running: bool = True) -> None:
        """Tell ``headwise status`` what is running."""
        now = time.monotonic()
        if force or now - self._noted > OFTEN:
            self._noted = now
            answered = self._answered + sum(self._running.values())
            named = tuple(self._running) if running else ()
            progress = Progress(running=named, questions=answered, seconds=round(now - self._begun, 3))
            write_progress(self._order.store.folder, progress)

    def _hear(self, event: Event) -> None:
        trial = self._trials[event.id]
        if isinstance(event, Started):
            self._running[event.id] = 0
            self._display.start(trial)
        elif isinstance(event, Advanced):
            self._running[event.id] += event.questions
            self._display.advance(trial, event.questions)
        else:
            self._end(trial, event)
        self.note(force=not isinstance(event, Advanced))

    def _end(self, trial: Trial, event: Ended) -> None:
        self._running.pop(trial.id, None)
        outcome = event.outcome
        if outcome.record is not None:
            attempt = self._attempt(trial)
            self._order.store.add({**outcome.record, "attempt": attempt}, outcome.outcomes)
            self._answered += trial.questions
            self.counts.ran += 1
            self._display.end(trial, outcome.record)
        elif outcome.refused is not None:
            self._refuse(trial, outcome.refused)
        else:
            self._fail(trial, outcome)

    def _fail(self, trial: Trial, outcome: Outcome) -> None:
        attempt = self._attempt(trial)
        self._order.store.add({**self._order.head(trial), "error": outcome.error, "attempt": attempt})
        again = outcome.again and not self._last
        self._display.fail(trial, str(outcome.error), again=again)
        if again:
            self._again.append(trial)
        else:
            self.counts.failed += 1

    def _refuse(self, trial: Trial, reason: str) -> None:
        """Put on record that a trial cannot be run, and why; once."""
        before = self._order.store.records.get(trial.id)
        if before is None or before.get("refused") != reason:
            budget = {"given": _budget(trial)}
            self._order.store.add({**self._order.head(trial), "budget": budget, "refused": reason})
        self.counts.refused += 1
        self._display.refuse(trial, reason)

    def _attempt(self, trial: Trial) -> int:
        """The number of the attempt that has just ended, those of earlier runs counted."""
        number = self._attempts[trial.id] = self._attempts.get(trial.id, 0) + 1
        return number


def _budget(trial: Trial) -> str:
    """As ``Budget.text``."""
    if trial.tokens is not None:
        return f"tokens={trial.tokens:g}"
    return "everything" if trial.keep is None else f"keep={trial.keep}"


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    """Inside, being asked to end is being interrupted: workers are ended, and what is finished stays."""
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
