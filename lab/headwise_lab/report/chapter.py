"""What a study adds to a report. The pages set chapters and sections, and know nothing else of a study.

A study builds its chapter from the records that belong to it (``headwise_lab.report.studies``). Tables are ``Grid``,
figures ``Figure``; nothing of the text is escaped here, because each page escapes all that it prints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.grid import Grid
from headwise_lab.report.page.kept import KeptView
from headwise_lab.report.trials import Trial, load_trials
from headwise_lab.store.record_types import Record, Result

if TYPE_CHECKING:
    from rich.table import Table


@attrs.define(eq=False, slots=False)
class ReadFolder:
    """An output folder as it was read: all its records, in the order in which they were written."""

    folder: Path
    records: Sequence[Record]

    @cached_property
    def _loaded(self) -> tuple[list[Trial], list[str]]:
        return load_trials(self.folder, self.records)

    @property
    def trials(self) -> list[Trial]:
        """The benchmark records that have a result, with the scores of their questions."""
        return self._loaded[0]

    @property
    def warnings(self) -> list[str]:
        """A sentence for each trial whose outcomes are missing or disagree with its record."""
        return self._loaded[1]

    def trials_of(self, records: Sequence[Record]) -> list[Trial]:
        """The trials of some of the records."""
        wanted: Collection[str] = {record.id for record in records}
        return [trial for trial in self.trials if trial.id in wanted]


@attrs.frozen(eq=False)
class Drawn:
    """The figures of a section, an overlay of kept tokens, and why that could not be drawn where it could not."""

    figures: Sequence[Figure] = ()
    kept: KeptView | None = None
    warning: str | None = None

    @property
    def files(self) -> list[Figure]:
        """Every figure that was written, the overlay last."""
        return [*self.figures, *([self.kept.figure] if self.kept else [])]


def draw_nothing(_folder: Path) -> Drawn:
    """For a section without figures."""
    return Drawn()


@attrs.frozen(eq=False)
class Detail:
    """A table behind the main one: folded away in HTML, under ``title`` (the grid's own where it is empty).

    ``lines``: a name and what is said of it, which Markdown lists in place of the table.
    """

    grid: Grid
    title: str = ""
    lines: Sequence[tuple[str, str]] = ()

    @property
    def heading(self) -> str:
        """What stands above the table."""
        return self.title or self.grid.title


@attrs.frozen(eq=False, kw_only=True)
class Section:
    """One comparison: its main table, the tables behind it, its figures, and what may be said of it.

    ``heading``: what Markdown writes above it, ``title`` where it is empty. ``legend``: what the signs in the main
    table mean; ``page_legend`` in HTML, where the table shows more. ``verdicts`` are the sentences that all findings
    begin with, ``best`` its best configurations, ``records`` those that it is about. ``draw`` writes its figures into
    a folder; ``drawn`` is what came of that.
    """

    title: str
    slug: str
    main: Grid
    heading: str = ""
    legend: str = ""
    page_legend: str = ""
    details: Sequence[Detail] = ()
    verdicts: Sequence[str] = ()
    best: Sequence[str] = ()
    records: Sequence[Record] = ()
    draw: Callable[[Path], Drawn] = draw_nothing
    drawn: Drawn = attrs.field(factory=Drawn)

    @property
    def grids(self) -> list[Grid]:
        """Every table, the main one first."""
        return [self.main, *(detail.grid for detail in self.details)]


@attrs.frozen(eq=False, kw_only=True)
class Chapter:
    """All that a study has to say on a folder; empty where the folder holds nothing that it can compare.

    ``closing`` are tables over all sections, ``method`` one paragraph on how to read them, ``results`` the records
    with a result and ``records`` their table. ``terminal`` gives the short tables that a command prints when it ends.
    """

    sections: Sequence[Section] = ()
    closing: Sequence[Grid] = ()
    method: str = ""
    results: Sequence[Result] = ()
    records: Grid | None = None
    warnings: Sequence[str] = ()
    terminal: Callable[[], Sequence[Table]] = tuple
