"""Progress bars on the error stream, which disappear at the end; the output stream has only results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from headwise.verbosity import is_quiet, warn
from headwise_lab.terminal.console import beside

LONGEST = 60  # characters of a name beside a bar
FINISHING = "All of it is read and answered; figures are measured and written ..."
"""What is shown in the place of full bars: a command measures, tests and writes after the last question."""

SHORT = 20  # width of a bar with much beside it


class Bar(Progress):
    """Bars with a plain-text name before them and ``columns`` after them; ``below`` returns lines to show below."""

    def __init__(self, *columns: ProgressColumn, console: Console | None = None, width: int | None = 40) -> None:
        self.below: Callable[[], list[RenderableType]] = list
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=width),
            *columns,
            console=console or beside(),
            transient=True,
            disable=is_quiet(),
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars and what is below them. When all are full, a line stands in their place until the work ends."""
        if any(not task.finished for task in self.tasks) or not self.tasks:
            yield self.make_tasks_table(self.tasks)
        else:
            yield Text(FINISHING)
        yield from self.below()


class Watched:
    """Shows a bar inside its ``with`` block, and prints lines above it."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        """Print above the bar."""
        self._bar.console.print(sentence, soft_wrap=True)

    def alert(self, sentence: str) -> None:
        """Print above the bar what has to be known, under ``--quiet`` too."""
        if is_quiet():
            warn(sentence)
        else:
            self.say(sentence)


@contextmanager
def counted(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """One bar; call the result with the amount done since the last call. Without a total, the bar only moves."""
    with Bar(MofNCompleteColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task(name, total=total)
        yield lambda more: bar.advance(task, more)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Several bars: call the result with a name and a total for a new bar; call that with the amount done in all."""
    with Bar(TaskProgressColumn(), TimeRemainingColumn()) as bars:

        def bar(name: str, total: int) -> Callable[[int], None]:
            task = bars.add_task(name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}...", total=total)
            return lambda done: bars.update(task, completed=done)

        yield bar
