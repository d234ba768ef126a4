"""What a person sees of a sweep while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from headwise_lab.sweeps.status import standing
from headwise_lab.sweeps.tally import headline
from headwise_lab.sweeps.trials import Trial

SHOWN = 4  # running trials that are named


class Display:
    """A bar over all questions, counts of trials, what is running, and the best so far; a line for each that ended."""

    def __init__(self, console: Console, trials: Iterable[Trial]) -> None:
        listed = list(trials)
        self._console, self._total = console, len(listed)
        self._done = self._failed = self._refused = 0
        self._running: dict[str, tuple[Trial, int]] = {}
        self._best: dict[tuple[str, str], tuple[float, str]] = {}
        self._bar = _Bar(self._below, console, _unit(listed))
        self._task = self._bar.add_task("", total=sum(trial.questions for trial in listed))
        self._found = 0

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        """Print above the bar."""
        self._console.print(sentence, soft_wrap=True)

    def found(self, trial: Trial, record: Mapping[str, Any]) -> None:
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

    def end(self, trial: Trial, record: Mapping[str, Any]) -> None:
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

    def _praise(self, trial: Trial, record: Mapping[str, Any]) -> None:
        key, value = (trial.model, trial.benchmark), standing(record)
        if trial.prunes and value > self._best.get(key, (float("-inf"), ""))[0]:
            self._best[key] = value, f"{trial.label}: {headline(record)}"

    def _refresh(self) -> None:
        told = [f"{self._done}/{self._total} done", f"{len(self._running)} running"]
        told += [f"{self._failed} failed"] if self._failed else []
        told += [f"{self._refused} not run"] if self._refused else []
        self._bar.update(self._task, description=", ".join(told))

    def _below(self) -> Iterable[Text]:
        running = [trial.label for trial, _ in list(self._running.values())]
        for label in running[:SHOWN]:
            yield Text(f"  running {label}", no_wrap=True, overflow="ellipsis", style="dim")
        if len(running) > SHOWN:
            yield Text(f"  and {len(running) - SHOWN} more", style="dim")
        for _, label in self._best.values():
            yield Text(f"  best so far {label}", no_wrap=True, overflow="ellipsis", style="dim")


def _unit(trials: Iterable[Trial]) -> str:
    """What trials are counted in: questions, or tokens of a text."""
    found = {"tokens" if trial.reads_text else "questions" for trial in trials}
    return " and ".join(sorted(found)) or "questions"


class _Bar(Progress):
    """A bar with lines below it."""

    def __init__(self, below: Any, console: Console, unit: str) -> None:
        self._below = below
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn(f"{{task.completed:.0f}}/{{task.total:.0f}} {unit}, left:"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar and what is below."""
        yield self.make_tasks_table(self.tasks)
        yield from self._below()
