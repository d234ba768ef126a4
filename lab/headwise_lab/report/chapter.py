"""The chapter that a study adds to a report. The pages print chapters and sections and know nothing else of a study.

A study builds its chapter from its own records (``headwise_lab.report.studies``). Tables are ``Grid``, figures are
``Figure``. No text is escaped here, because each page escapes everything that it prints.
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
    """An output folder and all its records, in the order in which they were written."""

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
        """The trials of these records."""
        wanted: Collection[str] = {record.id for record in records}
        return [trial for trial in self.trials if trial.id in wanted]


@attrs.frozen(eq=False)
class Drawn:
    """The figures of a section and its overlay of kept tokens, or a warning that says why there is no overlay."""

    figures: Sequence[Figure] = ()
    kept: KeptView | None = None
    warning: str | None = None

    @property
    def files(self) -> list[Figure]:
        """All figures that were written, the overlay last."""
        return [*self.figures, *([self.kept.figure] if self.kept else [])]


def draw_nothing(_folder: Path) -> Drawn:
    """The ``draw`` of a section without figures."""
    return Drawn()


@attrs.frozen(eq=False)
class Detail:
    """A table below the main one; HTML folds it away under ``title`` (or the title of the grid, if that is empty).

    ``lines``: pairs (name, text) that Markdown lists instead of the table.
    """

    grid: Grid
    title: str = ""
    lines: Sequence[tuple[str, str]] = ()

    @property
    def heading(self) -> str:
        """The heading above the table."""
        return self.title or self.grid.title


@attrs.frozen(eq=False, kw_only=True)
class Section:
    """One comparison: its main table, the tables below it, its figures, and its findings.

    ``heading``: the heading in Markdown; empty for ``title``. ``legend``: what the signs in the main table mean;
    ``page_legend``: the same for HTML, where the table shows more. ``verdicts``: sentences for the list of findings at
    the beginning of the report. ``best``: its best configurations. ``records``: the records that it is about. ``draw``
    writes its figures into a folder and returns ``drawn``.
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
        """All tables, the main one first."""
        return [self.main, *(detail.grid for detail in self.details)]


@attrs.frozen(eq=False, kw_only=True)
class Chapter:
    """What a study reports on a folder; empty where the folder has nothing that it can compare.

    ``conclusion``: what it shows, in two or three plain sentences made from its verdicts; a page begins with it, or
    with the first verdict where it is empty. ``closing``: tables over all sections. ``method``: one paragraph on how to
    read the chapter. ``results``: the records with a result. ``records``: the table that lists them. ``terminal``:
    makes the short tables that a command prints when it ends.
    """

    sections: Sequence[Section] = ()
    conclusion: str = ""
    closing: Sequence[Grid] = ()
    method: str = ""
    results: Sequence[Result] = ()
    records: Grid | None = None
    warnings: Sequence[str] = ()
    terminal: Callable[[], Sequence[Table]] = tuple
