"""A printable table, and how it becomes Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from headwise_lab.report.latex import latex, latex_text

__all__ = ["SIGNS", "Grid", "Mark", "comma_separated", "grid_csv", "latex", "latex_text", "markdown", "markdown_text"]

SIGNS = {"same": "≈", "better": "↑", "worse": "↓"}
"""How a verdict is written where there is no colour."""


@attrs.frozen
class Mark:
    """A table cell: its text and how it is set.

    ``verdict`` is ``same``, ``better``, ``worse`` or empty; ``note`` is a second line, ``hint`` everything else there
    is to say and ``anchor`` the record it comes from. ``records`` are all of them where there are several. A number
    without any comes from those of the first mark of its row that has some. ``data`` are facts about a number by name
    as plain values (see ``facts``): value, se, n, units, seeds, benchmark, method, budget, processed, heads,
    strategies, command, record; of its paired difference reference, difference, difference_se, low, high, pairs, test,
    p, adjusted_p, family, verdict; a second difference has to_unpruned_ or to_random_ before them. Only what there is.
    """

    text: str
    bold: bool = False
    verdict: str = ""
    note: str = ""
    hint: str = ""
    anchor: str = ""
    recommended: bool = False
    records: tuple[str, ...] = ()
    data: Mapping[str, Any] = attrs.field(factory=dict, hash=False)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every record the mark comes from."""
        return self.records or ((self.anchor,) if self.anchor else ())


@attrs.frozen
class Grid:
    """A titled table of marks; ``long`` are the rows of its CSV file where they say more than what is shown."""

    title: str
    slug: str
    header: tuple[str, ...]
    rows: tuple[tuple[Mark, ...], ...]
    caption: str = ""
    long: tuple[Mapping[str, Any], ...] = attrs.field(default=(), hash=False)

    @classmethod
    def of(
        cls, title: str, slug: str, header: Sequence[str], rows: Sequence[Sequence[str | Mark]], caption: str = ""
    ) -> Grid:
        """A grid from plain texts and marks."""
        marks = tuple(tuple(cell if isinstance(cell, Mark) else Mark(cell) for cell in row) for row in rows)
        return cls(title, slug, tuple(header), marks, caption)


def markdown(grid: Grid) -> str:
    """A Markdown table; bold is ``**``, verdicts are signs behind the figure."""
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
    """Text that a Markdown table takes literally."""
    for letter, escape in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("\n", " ")):
        text = text.replace(letter, escape)
    return text


def comma_separated(header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV of plain rows; what a row lacks is left empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(header), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def grid_csv(grid: Grid) -> str:
    """CSV of a grid: its long rows where it has some, else its texts."""
    if grid.long:
        return comma_separated(list(dict.fromkeys(key for row in grid.long for key in row)), grid.long)
    return comma_separated(
        grid.header, [dict(zip(grid.header, (mark.text for mark in row), strict=True)) for row in grid.rows]
    )
