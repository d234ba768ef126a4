"""A printable table, and how it is written as Markdown and CSV (as LaTeX: page/latex.py)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence

import attrs

from headwise.printing import printable
from headwise_lab.store.csv_cells import CsvRows

SIGNS = {"same": "≈", "better": "↑", "worse": "↓"}
"""Verdict -> the sign for it where there is no colour."""

MISSING = "-"

_ALIVE = re.compile(r"[\\|<>*`~\[\]]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|:(?=//)|(?<=www)\.")
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_BEGINS = re.compile(r"^([0-9]+(?=[.)])|(?=[#+=-]))(.)")


@attrs.frozen
class Mark:
    """A table cell: its text and how it is printed.

    ``verdict`` is ``same``, ``better``, ``worse`` or empty. ``note`` is a second line, ``hint`` the text of a tooltip.
    ``anchor`` is the record that the cell comes from, ``records`` all of them where there are several. A number with
    neither comes from the records of the first cell of its row that has some.

    ``data`` holds facts about a number by name, as plain values (see ``facts``); unknown ones are left out. They are
    value, se, n, units, seeds, benchmark, method, budget, processed, heads, strategies, command, record; and of its
    paired difference: reference, difference, difference_se, low, high, pairs, test, p, adjusted_p, family, verdict.
    The names of a second difference begin with to_unpruned_ or to_random_.
    """

    text: str
    bold: bool = False
    verdict: str = ""
    note: str = ""
    hint: str = ""
    anchor: str = ""
    recommended: bool = False
    records: tuple[str, ...] = ()
    data: Mapping[str, object] = attrs.field(factory=dict, hash=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every record that the cell comes from."""
        return self.records or ((self.anchor,) if self.anchor else ())


@attrs.frozen
class Grid:
    """A titled table of marks. ``long``: the rows of its CSV file, where that says more than the table shows."""

    title: str
    slug: str
    header: tuple[str, ...]
    rows: tuple[tuple[Mark, ...], ...]
    caption: str = ""
    long: tuple[Mapping[str, object], ...] = attrs.field(default=(), hash=False)

    @classmethod
    def of(
        cls, title: str, slug: str, header: Sequence[str], rows: Sequence[Sequence[str | Mark]], caption: str = ""
    ) -> Grid:
        """A grid from plain texts and marks."""
        marks = tuple(tuple(cell if isinstance(cell, Mark) else Mark(cell) for cell in row) for row in rows)
        return cls(title, slug, tuple(header), marks, caption)


def markdown(grid: Grid) -> str:
    """A Markdown table. The sign of a verdict follows the figure."""
    lines = [
        [markdown_text(name) for name in grid.header],
        ["---"] * len(grid.header),
        *([_markdown_cell(mark) for mark in row] for row in grid.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(mark: Mark) -> str:
    text = markdown_text(mark.text)
    text = f"**{text}**" if mark.bold else text
    signs = SIGNS.get(mark.verdict, "") + ("★" if mark.recommended else "")
    return f"{text} {signs}" if signs else text


def markdown_text(text: str) -> str:
    """Text that Markdown prints as it is within a line or a cell: links, tags, emphasis and bars are escaped."""
    text = _ALIVE.sub(lambda found: _ENTITIES.get(found[0]) or f"\\{found[0]}", " ".join(text.splitlines()))
    return printable(text.replace("\t", " "))


def markdown_line(text: str) -> str:
    """As ``markdown_text``, for the beginning of a line: it begins no heading, list or quotation either."""
    text = markdown_text(text.strip())
    return _BEGINS.sub(r"\1\\\2", text)


def fenced(text: str) -> str:
    """A block of code. Its fence is longer than every run of backticks inside, so that none of them ends it."""
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", text))])
    return f"{fence}\n{printable(text)}\n{fence}"


def comma_separated(header: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """CSV of plain rows; a value that a row lacks is left empty."""
    buffer = io.StringIO()
    written = CsvRows(buffer)
    written.add(header)
    for row in rows:
        written.add(row.get(name, "") for name in header)
    return buffer.getvalue()


def grid_csv(grid: Grid) -> str:
    """CSV of a grid: its long rows where it has some, else the texts of its cells."""
    if grid.long:
        return comma_separated(list(dict.fromkeys(key for row in grid.long for key in row)), grid.long)
    return comma_separated(
        grid.header, [dict(zip(grid.header, (mark.text for mark in row), strict=True)) for row in grid.rows]
    )


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or ``-`` where it is None or NaN."""
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def flat(record: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A record with keys ``a.b`` in place of nested objects."""
    result: dict[str, object] = {}
    for key, value in record.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result
