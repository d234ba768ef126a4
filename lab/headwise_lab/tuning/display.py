"""What the terminal shows while a search runs: a bar, and a line for every point that has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

from headwise_lab.terminal.progress import SHORT, Bar, Watched
from headwise_lab.tuning.searching import REASON, label

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from headwise_lab.tuning.confirming import Confirmed

_ENDED = {"PRUNED": "cannot be run", "FAIL": "failed"}


class SearchDisplay(Watched):
    """The progress of a search and then of its confirmation, counted in points."""

    def __init__(self, console: Console) -> None:
        answered = TextColumn("points, {task.fields[answered]} questions answered, left:")
        super().__init__(Bar(MofNCompleteColumn(), answered, TimeRemainingColumn(), console=console, width=SHORT))
        self._task = self._bar.add_task("", total=None, answered=0)
        self._answered = 0

    def begin(self, what: str, points: int, done: int) -> None:
        """A part of the work begins; ``done`` of its ``points`` were measured in an earlier run."""
        self._bar.update(self._task, description=what, total=points, completed=done)

    def start(self, label: str) -> None:
        """The next point begins."""
        self._bar.update(self._task, description=label)

    def advance(self, questions: int) -> None:
        """``questions`` more questions are answered."""
        self._answered += questions
        self._bar.update(self._task, answered=self._answered)

    def end(self, trial: FrozenTrial) -> None:
        """A trial of the search has ended."""
        if trial.values is None:
            result = f"{_ENDED.get(trial.state.name, trial.state.name)}: {trial.user_attrs.get(REASON)}"
        else:
            result = f"{trial.values[0]:.1f} % of the unpruned model"
        self.say(f"{trial.number + 1}. {label(trial)}: {result}")
        self._bar.advance(self._task)

    def confirmed(self, point: Confirmed) -> None:
        """A point of the front was measured on held-out questions."""
        before, again = point.found.value.accuracy, point.again.value
        result = point.again.reason if again is None else f"{again.accuracy:.1f} % (search: {before:.1f} %)"
        self.say(f"held out: {point.again.point.label}: {result}")
        self._bar.advance(self._task)
