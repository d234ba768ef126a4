"""The content of a report, gathered once; the Markdown page and the HTML page print the same content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import ContractError, DataError
from headwise_lab.report.chapter import Chapter, Drawn, ReadFolder, Section
from headwise_lab.report.failures import failures
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.grid import Grid, flat
from headwise_lab.report.studies import chapters
from headwise_lab.store.record_types import Record, Result
from headwise_lab.store.records import attempts_in, read_records


@attrs.frozen(eq=False)
class Content:
    """A whole report: the chapters of all studies, and the failures and warnings, which belong to no study."""

    title: str
    chapters: tuple[Chapter, ...]
    failures: Grid | None
    warnings: tuple[str, ...]
    records: tuple[Record, ...] = ()

    @property
    def sections(self) -> list[Section]:
        """The sections of all chapters."""
        return [section for chapter in self.chapters for section in chapter.sections]

    @property
    def closing(self) -> list[Grid]:
        """The tables over all sections, and the table of trials without a result."""
        own = [grid for chapter in self.chapters for grid in chapter.closing]
        return [*own, *([self.failures] if self.failures else [])]

    @property
    def results(self) -> list[Result]:
        """The records that have a result."""
        return [record for chapter in self.chapters for record in chapter.results]

    @property
    def count(self) -> int:
        """How many records have a result."""
        return len(self.results)

    @property
    def findings(self) -> list[str]:
        """The sentences of all findings."""
        return [sentence for section in self.sections for sentence in section.verdicts]

    @property
    def conclusions(self) -> list[str]:
        """What each study shows: its conclusion, or the first of its findings where it draws none."""
        firsts = ((one.conclusion, *(line for part in one.sections for line in part.verdicts)) for one in self.chapters)
        return [text for lines in firsts if (text := next(filter(None, lines), ""))]

    @property
    def methods(self) -> list[str]:
        """How to read the chapters: a paragraph for each."""
        return [chapter.method for chapter in self.chapters if chapter.method]

    @property
    def listed(self) -> list[Grid]:
        """The lists of records that all figures come from; chapters that use the same list share one.

        As CSV they hold every field of the records.
        """
        found: dict[str, Grid] = {}
        for chapter in self.chapters:
            if grid := chapter.records:
                before = found.get(grid.slug, attrs.evolve(grid, rows=(), long=()))
                long = (*before.long, *(flat(record.to_json()) for record in chapter.results))
                found[grid.slug] = attrs.evolve(before, rows=(*before.rows, *grid.rows), long=long)
        return list(found.values())

    @property
    def figures(self) -> list[Figure]:
        """All figures that were drawn."""
        return [figure for section in self.sections for figure in section.drawn.files]

    def grids(self) -> list[Grid]:
        """All tables but the lists of records, in the order of the report."""
        return [*(grid for section in self.sections for grid in section.grids), *self.closing]

    def drawn(self, folder: Path) -> Content:
        """The report with its figures drawn into ``folder``, and a warning for each that could not be drawn."""
        made = [attrs.evolve(chapter, sections=[_drawn(one, folder) for one in chapter.sections])
                for chapter in self.chapters]  # fmt: skip
        failed = [one.drawn.warning for chapter in made for one in chapter.sections if one.drawn.warning]
        return attrs.evolve(self, chapters=tuple(made), warnings=(*self.warnings, *failed))


def _drawn(section: Section, folder: Path) -> Section:
    try:
        drawn = section.draw(folder)
    except ContractError as error:  # of a study of another package
        drawn = Drawn(warning=f"{section.title} has no figures: {error}")
    return attrs.evolve(section, drawn=drawn)


def gather(folder: Path, title: str | None = None) -> Content:
    """Read an output folder; raises DataError where there is nothing to report on."""
    records, warnings = read_records(folder)
    found = ReadFolder(folder, records)
    made, left_out = chapters(found)
    own = [warning for chapter in made for warning in chapter.warnings]
    content = Content(
        title=title or f"Headwise report: {folder.resolve().name}",
        chapters=tuple(made),
        failures=failures(records, attempts_in(folder)),
        warnings=(*warnings, *left_out, *found.warnings, *own),
        records=tuple(records),
    )
    _check_names(content.grids())
    return content


def _check_names(grids: Sequence[Grid]) -> None:
    """Raise DataError where two tables have the same slug, because one file would overwrite the other."""
    twice = [slug for slug, count in Counter(grid.slug for grid in grids).items() if count > 1]
    if twice:
        raise DataError(f"two tables of the report are called {twice[0]!r}; a study must give each its own slug")
