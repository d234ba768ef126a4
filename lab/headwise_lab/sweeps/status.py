"""How far a sweep is: its plan and its records, read while it runs or after it was cut short. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.folder import Progress, is_locked, read_plan, read_progress
from headwise_lab.sweeps.trials import Trial

DONE, RUNNING, FAILED, REFUSED, WAITING = "done", "running", "failed", "refused", "waiting"
LOWER_IS_BETTER = "perplexity"
STATES = (DONE, RUNNING, FAILED, REFUSED, WAITING)


@attrs.frozen(eq=False)
class Status:
    """A sweep as it stands: every trial and its state, records by identity, and whether it is running now."""

    title: str
    trials: Sequence[tuple[Trial, str]]
    records: Mapping[str, Record]
    active: bool
    progress: Progress
    warnings: Sequence[str] = ()

    def count(self, state: str) -> int:
        """Trials in a state."""
        return sum(found == state for _, found in self.trials)

    @property
    def left(self) -> float | None:
        """Seconds until all is done, at the rate so far; None where nothing runs or nothing was answered yet."""
        if not self.active or self.progress.rate is None:
            return None
        return sum(trial.questions for trial, state in self.trials if state in (RUNNING, WAITING)) / self.progress.rate

    def groups(self) -> dict[tuple[str, str], Counter[str]]:
        """(model, benchmark) -> states of its trials."""
        found: dict[tuple[str, str], Counter[str]] = {}
        for trial, state in self.trials:
            found.setdefault((trial.model, trial.benchmark), Counter())[state] += 1
        return found

    def best(self, model: str, benchmark: str) -> tuple[Trial, Record] | None:
        """The trial that leaves something out and stands best so far, the first of equal ones."""
        done = [
            (trial, self.records[trial.id])
            for trial, state in self.trials
            if state == DONE and trial.prunes and (trial.model, trial.benchmark) == (model, benchmark)
        ]
        return max(done, key=lambda pair: standing(pair[1]), default=None)


def figure(record: Record) -> float:
    """The headline of a record; minus infinity where it has none."""
    return float("-inf") if record.metric is None else float(record.metric.value)


def standing(record: Record) -> float:
    """What is higher for the better of two records: the headline, or how far a perplexity is below 0."""
    value = figure(record)
    falls = record.metric is not None and record.metric.name == LOWER_IS_BETTER
    return -value if value > 0 and falls else value


def look(folder: Path) -> Status:
    """The sweep in a folder or behind a URL; raises DataError where there is none, or its records cannot be read."""
    title, trials = read_plan(folder)
    store = Store.look(folder)
    active, progress = is_locked(folder), read_progress(folder)
    running = progress.running if active else ()
    states = [(trial, state_of(trial, store, running)) for trial in trials]
    return Status(title, states, store.records, active, progress, store.warnings)


def state_of(trial: Trial, store: Store, running: Sequence[str]) -> str:
    """What has become of a trial."""
    if store.done(trial.id):
        return DONE
    if trial.id in running:
        return RUNNING
    if trial.refused:
        return REFUSED
    record = store.records.get(trial.id)
    if record is None or record.has_result:  # its outcomes are missing, so it will be run again
        return WAITING
    return REFUSED if record.refused else FAILED
