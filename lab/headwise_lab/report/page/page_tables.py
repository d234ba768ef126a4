"""Tables of a page: each row with its facets, each number with the records it comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from headwise_lab.report.page.facets import HEADERS, Facets, of_columns, of_rows, plain, sources
from headwise_lab.report.page.grid import Grid, Mark
from headwise_lab.report.page.own_facts import own_facts
from headwise_lab.report.page.page_records import Book

_NUMBER = re.compile(r"[<≥≤+−-]? ?\d[\d.,:]*(e[+-]?\d+)?($|[ %~])")
ACROSS = ("Token", "Head")
"""A header that begins so has a column for each strategy, unless it has one called Strategy."""

_LONG = 40  # a cell of more letters gets more room


@attrs.frozen
class PageCell:
    """A cell of a table.

    ``linked``: the record that its number leads to. ``records``: those it comes from; empty where they are the row's.
    ``own``: number of the note about this figure. ``text``: it is a label. ``again``: it repeats the cell above.
    """

    mark: Mark
    linked: str = ""
    records: str = ""
    own: str = ""
    text: bool = False
    again: bool = False

    @property
    def long(self) -> bool:
        """Whether it needs more room."""
        return len(self.mark.text) > _LONG


@attrs.frozen
class PageRow:
    """A row: the facets it is filtered by, its records, and the record whose entry it is (in the list of records)."""

    facets: tuple[tuple[str, str], ...]
    records: str
    cells: tuple[PageCell, ...]
    entry: str = ""


@attrs.frozen
class PageTable:
    """A table. ``columns``: the facets of each column, where budgets or head counts are columns. ``texts``: whether
    each column holds labels. ``wide``: whether its cells are long texts."""

    grid: Grid
    rows: tuple[PageRow, ...]
    columns: tuple[Facets, ...]
    texts: tuple[bool, ...]
    wide: bool


def page_table(grid: Grid, book: Book, around: Facets, *, entries: bool = False, wide: bool = False) -> PageTable:
    """The table of a grid; what its figures say beyond their records becomes notes of the book.

    Strategies are rows: a grid with a column for each strategy is turned. ``entries``: links to a record lead to its
    row here. ``wide``: its cells are long texts.
    """
    columns = tuple(of_columns(grid, book.facets))
    if tuple(grid.header[:2]) == ACROSS != grid.header and "Strategy" not in grid.header:
        grid, columns = turned(grid)
    texts = tuple(_is_text(grid, place) for place in range(len(grid.header)))
    facets = of_rows(grid, book.facets, around, columns)
    above: list[Mark] = [Mark("")] * len(grid.header)
    rows = []
    for number, marks in enumerate(grid.rows):
        of_row = _first(marks, book)
        cells = [
            _cell(mark, above[place], book, header=grid.header[place], text=texts[place], of_row=of_row)
            for place, mark in enumerate(marks)
        ]
        above = [cell.mark for cell in cells]
        own = tuple(facets[number].within(around).items())
        entry = next((mark.anchor for mark in marks if mark.anchor), "") if entries else ""
        shared = " ".join(of_row) if any(cell.linked and not cell.records for cell in cells) else ""
        rows.append(PageRow(own, shared, tuple(cells), entry))
    return PageTable(grid, tuple(rows), columns, texts, wide)


def turned(grid: Grid) -> tuple[Grid, tuple[Facets, ...]]:
    """A grid of budgets and head counts down and strategies across, turned; and the facets of its new columns."""
    labels, facets, budget = [], [], ""
    for row in grid.rows:
        budget = row[0].text or budget
        labels.append(f"{budget}, {row[1].text} heads")
        facets.append(Facets(budget=(plain(budget),), heads=(plain(row[1].text),)))
    rows = [
        [Mark(name), *(attrs.evolve(row[place], records=row[place].sources or sources(row)) for row in grid.rows)]
        for place, name in enumerate(grid.header[2:], 2)
    ]
    made = Grid.of(grid.title, grid.slug, ["Strategy", *labels], rows, grid.caption)
    return made, (Facets(), *facets)


def _is_text(grid: Grid, place: int) -> bool:
    """Whether a column holds labels: its name says so, or nothing in it is a number."""
    filled = [row[place].text for row in grid.rows if row[place].text not in ("", "-")]
    return grid.header[place] in HEADERS or not any(_NUMBER.match(text) for text in filled)


def _first(marks: Sequence[Mark], book: Book) -> tuple[str, ...]:
    """The records of the first cell of a row that has some."""
    named = (tuple(name for name in mark.sources if name in book.facts) for mark in marks)
    return next(filter(None, named), ())


def _cell(mark: Mark, above: Mark, book: Book, *, header: str, text: bool, of_row: tuple[str, ...]) -> PageCell:
    if not mark.text and header in HEADERS:  # repeat the label of the row above: sorting may move that row away
        return PageCell(above, text=True, again=True)
    named = tuple(name for name in mark.sources if name in book.facts) or of_row
    if text or not named or _NUMBER.match(mark.text) is None:
        return PageCell(mark, text=text)
    records = "" if named == of_row else " ".join(named)
    return PageCell(mark, named[-1], records, book.note(_own(mark, book)))


def _own(mark: Mark, book: Book) -> str:
    """What a figure says beyond its records: lines ``label TAB text``, or the lines of its hint that no record has."""
    facts = own_facts(mark.data)
    if facts:
        return "\n".join(f"{label}\t{text}" for label, text in facts)
    return "\n".join(line for line in mark.hint.splitlines() if line.strip() and line not in book.repeated)
