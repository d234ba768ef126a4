"""What a person sees of a sweep while it runs."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.progress import TextColumn, TimeRemainingColumn
from rich.text import Text

from headwise_lab.store.record_types import Record
from headwise_lab.sweeps.status import standing
from headwise_lab.sweeps.tally import headline
from headwise_lab.sweeps.trials import Trial
from headwise_lab.terminal.progress import SHORT, Bar, Watched

SHOWN = 4  # running trials that are named


class Display(Watched):
    """A bar over all questions, counts of trials, what is running, and the best so far; a line for each that ended."""

    def __init__(self, console: Console, trials: Iterable[Trial]) -> None:
        listed = list(trials)
        columns = TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {_unit(listed)}, left:"), TimeRemainingColumn()
        super().__init__(Bar(*columns, console=console, width=SHORT))
        self._total = len(listed)
        self._done = self._failed = self._refused = 0
        self._running: dict[str, tuple[Trial, int]] = {}
        self._best: dict[tuple[str, str], tuple[float, str]] = {}
        self._bar.below = self._below
        self._task = self._bar.add_task("", total=sum(trial.questions for trial in listed))
        self._found = 0

    def found(self, trial: Trial, record: Record) -> None:
        """A trial need not be run."""
        self._done += 1
        self._found += trial.questions
        # What was there takes no time; counted as progress, it would make what is left look quick.
        self._bar.update(self._task, total=(self._bar.tasks[0].total or 0) - trial.questions)
        self._praise(trial, record)
        self._refresh()

    def start(self, trial: Trial) -> None:
        """A trial begins."""
        self._running[trial.id] = trial, 0
        self._refresh()

    def advance(self, trial: Trial, questions: int) -> None:
        """So many more questions of a trial are answered."""
        self._running[trial.id] = trial, self._running[trial.id][1] + questions
        self._bar.advance(self._task, questions)

    def end(self, trial: Trial, record: Record) -> None:
        """A trial is done."""
        self._leave(trial, completed=True)
        self._done += 1
        self._praise(trial, record)
        self.say(f"{trial.label}: {headline(record)}")
        self._refresh()

    def fail(self, trial: Trial, reason: str, *, again: bool) -> None:
        """A trial has failed, for good or not."""
        self._leave(trial, completed=not again)
        self._failed += not again
        self.say(f"failed{', will be tried again' if again else ''}: {trial.label}: {reason}")
        self._refresh()

    def refuse(self, trial: Trial, reason: str) -> None:
        """A trial cannot be run."""
        self._leave(trial, completed=True)
        self._refused += 1
        self.say(f"not run: {trial.label}: {reason}")
        self._refresh()

    def _leave(self, trial: Trial, *, completed: bool) -> None:
        _, answered = self._running.pop(trial.id, (trial, 0))
        self._bar.advance(self._task, trial.questions - answered if completed else -answered)

    def _praise(self, trial: Trial, record: Record) -> None:
        key, value = (trial.model, trial.benchmark), standing(record)
        if trial.prunes and value > self._best.get(key, (float("-inf"), ""))[0]:
            self._best[key] = value, f"{trial.label}: {headline(record)}"

    def _refresh(self) -> None:
        told = [f"{self._done}/{self._total} done", f"{len(self._running)} running"]
        told += [f"{self._failed} failed"] if self._failed else []
        told += [f"{self._refused} not run"] if self._refused else []
        self._bar.update(self._task, description=", ".join(told))

    def _below(self) -> list[RenderableType]:
        running = [trial.label for trial, _ in list(self._running.values())]
        told = [f"  running {label}" for label in running[:SHOWN]]
        told += [f"  and {len(running) - SHOWN} more"] if len(running) > SHOWN else []
        told += [f"  best so far {label}" for _, label in self._best.values()]
        return [Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in told]


def _unit(trials: Iterable[Trial]) -> str:
    """What trials are counted in: questions, or tokens of a text."""
    found = {"tokens" if trial.reads_text else "questions" for trial in trials}
    return " and ".join(sorted(found)) or "questions"
