"""What the terminal shows while a sweep runs."""

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
    """A bar over all questions, with counts, running trials and the best so far; prints a line for each ended trial."""

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
        """A trial is in the store already and is not run."""
        self._done += 1
        self._found += trial.questions
        # Found trials take no time: if they counted as progress, the time left would be estimated too short.
        self._bar.update(self._task, total=(self._bar.tasks[0].total or 0) - trial.questions)
        self._praise(trial, record)
        self._refresh()

    def start(self, trial: Trial) -> None:
        """A trial begins."""
        self._running[trial.id] = trial, 0
        self._refresh()

    def advance(self, trial: Trial, questions: int) -> None:
        """``questions`` more questions of a trial are answered."""
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
        """A trial has failed; ``again``: it will be tried once more."""
        self._leave(trial, completed=not again)
        self._failed += not again
        self.alert(f"failed{', will be tried again' if again else ''}: {trial.label}: {reason}")
        self._refresh()

    def refuse(self, trial: Trial, reason: str) -> None:
        """A trial cannot be run."""
        self._leave(trial, completed=True)
        self._refused += 1
        self.alert(f"not run: {trial.label}: {reason}")
        self._refresh()

    def _leave(self, trial: Trial, *, completed: bool) -> None:
        _, answered = self._running.pop(trial.id, (trial, 0))
        self._bar.advance(self._task, trial.questions - answered if completed else -answered)

    def _praise(self, trial: Trial, record: Record) -> None:
        key, value = (trial.model, trial.benchmark), standing(record)
        if trial.prunes and value > self._best.get(key, (float("-inf"), ""))[0]:
            self._best[key] = value, f"{trial.label}: {headline(record)}"

    def _refresh(self) -> None:
        parts = [f"{self._done}/{self._total} done", f"{len(self._running)} running"]
        parts += [f"{self._failed} failed"] if self._failed else []
        parts += [f"{self._refused} not run"] if self._refused else []
        self._bar.update(self._task, description=", ".join(parts))

    def _below(self) -> list[RenderableType]:
        running = [trial.label for trial, _ in list(self._running.values())]
        lines = [f"  running {label}" for label in running[:SHOWN]]
        lines += [f"  and {len(running) - SHOWN} more"] if len(running) > SHOWN else []
        lines += [f"  best so far {label}" for _, label in self._best.values()]
        return [Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in lines]


def _unit(trials: Iterable[Trial]) -> str:
    """The unit of trials' sizes: questions, or tokens of a text, or both."""
    found = {"tokens" if trial.reads_text else "questions" for trial in trials}
    return " and ".join(sorted(found)) or "questions"
