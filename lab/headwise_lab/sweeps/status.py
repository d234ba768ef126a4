"""How many trials of a sweep are done, from its plan and records, while it runs or afterwards. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.folder import SweepProgress, is_locked, read_plan, read_progress
from headwise_lab.sweeps.trials import Trial

DONE, RUNNING, FAILED, REFUSED, WAITING = "done", "running", "failed", "refused", "waiting"
LOWER_IS_BETTER = "perplexity"
STATES = (DONE, RUNNING, FAILED, REFUSED, WAITING)


@attrs.frozen(eq=False)
class Status:
    """The state of a sweep: every trial with its state, records by id, and whether the sweep is running now."""

    title: str
    trials: Sequence[tuple[Trial, str]]
    records: Mapping[str, Record]
    active: bool
    progress: SweepProgress
    warnings: Sequence[str] = ()

    def count(self, state: str) -> int:
        """The number of trials in a state."""
        return sum(found == state for _, found in self.trials)

    @property
    def left(self) -> float | None:
        """Seconds until the end at the rate so far; None where the sweep is not running, or has no answer yet."""
        if not self.active or self.progress.rate is None:
            return None
        return sum(trial.questions for trial, state in self.trials if state in (RUNNING, WAITING)) / self.progress.rate

    def groups(self) -> dict[tuple[str, str], Counter[str]]:
        """(model, benchmark) -> state -> number of trials."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for trial, state in self.trials:
            found.setdefault((trial.model, trial.benchmark), Counter())[state] += 1
        return found

    def best(self, model: str, benchmark: str) -> tuple[Trial, Record] | None:
        """The best trial so far that prunes or evicts, the first of equal ones; None where there is none."""
        done = [
            (trial, self.records[trial.id])
            for trial, state in self.trials
            if state == DONE and trial.prunes and (trial.model, trial.benchmark) == (model, benchmark)
        ]
        return max(done, key=lambda pair: standing(pair[1]), default=None)


def figure(record: Record) -> float:
    """The value of a record's headline metric; minus infinity where it has none."""
    return float("-inf") if record.metric is None else float(record.metric.value)


def standing(record: Record) -> float:
    """A number that is higher for the better record: the headline metric, or the negative of a perplexity."""
    value = figure(record)
    falls = record.metric is not None and record.metric.name == LOWER_IS_BETTER
    return -value if value > 0 and falls else value


def look(folder: Path) -> Status:
    """The state of the sweep in a folder or behind a URL.

    Raises DataError where there is none, or its records cannot be read.
    """
    title, trials = read_plan(folder)
    store = Store.look(folder)
    active, progress = is_locked(folder), read_progress(folder)
    running = progress.running if active else ()
    states = [(trial, state_of(trial, store, running)) for trial in trials]
    return Status(title, states, store.records, active, progress, store.warnings)


def state_of(trial: Trial, store: Store, running: Sequence[str]) -> str:
    """The state of a trial."""
    if store.done(trial.id):
        return DONE
    if trial.id in running:
        return RUNNING
    if trial.refused:
        return REFUSED
    record = store.records.get(trial.id)
    if record is None or record.has_result:  # a result without its outcomes is run again
        return WAITING
    return REFUSED if record.refused else FAILED
