"""A rich console that shows texts from outside as they are: they can neither colour nor control the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from headwise.printing import printable
from headwise.verbosity import is_quiet


class Terminal(Console):
    """A console that obeys neither markup nor escape sequences in texts. Options are those of ``Console``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments to show, made printable; rich's own control codes stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def beside() -> Terminal:
    """The console for what is told beside the answer: standard error, or nothing under ``--quiet``."""
    return Terminal(stderr=True, quiet=is_quiet())


def wide_enough(tables: Iterable[RenderableType]) -> Terminal:
    """A console for tables: a terminal's own width, where they fit themselves in, elsewhere that of the widest one."""
    if (own := Terminal()).is_terminal:
        return own
    needed = max((Terminal(width=1000).measure(table).maximum for table in tables), default=0)
    return Terminal(width=max(own.width, needed), soft_wrap=True)
