"""Reads score tables from Markdown, in the layout of LLaVA-FinePruner-Head's results and of our own ``report.md``.

A table stands under a heading that ends in ``评估结果`` or ``results`` and opens with the columns Token and Head; a
token cell is filled on the first row of its group only, the best figure is bold, ``-`` is a missing one.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise.reading import shortened, text_of

LARGEST = 2**24  # bytes
LONGEST_LINE, MOST_DIGITS = 2**14, 40
"""Most letters of a line and most digits of a number; with these limits no regular expression takes long."""
_ANY_HEADING = re.compile(r"#{1,6}\s+\S.*")
_FIGURE = re.compile(r"(-?\d+(?:\.\d+)?)\s*%?(?:\s*±\s*\S+)?")
_MISSING = ("", "-", "–", "—")
_SIGNS = "≈↑↓★ "


@attrs.frozen
class PrintedFigure:
    """A figure exactly as printed, and whether it is bold."""

    value: Decimal
    bold: bool = False


@attrs.frozen
class ScoreRow:
    """One token budget and head count: column -> figure, without columns whose figure is missing."""

    token: str
    head: str
    figures: dict[str, PrintedFigure]
    line: int

    @property
    def best(self) -> tuple[str, ...]:
        """The columns with the highest figure, several where they tie; none in a row with a single figure."""
        if len(self.figures) < 2:
            return ()
        top = max(figure.value for figure in self.figures.values())
        return tuple(name for name, figure in self.figures.items() if figure.value == top)

    @property
    def bold(self) -> tuple[str, ...]:
        """The columns that the document marks as best."""
        return tuple(name for name, figure in self.figures.items() if figure.bold)

    @property
    def label(self) -> str:
        """``token/head``."""
        return f"{self.token}/{self.head}"


@attrs.frozen
class ScoreTable:
    """A benchmark's table."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]


def read_text(path: Path) -> str:
    """The text of a document, with single blanks; raises DataError where it cannot be read or exceeds the limits."""
    try:
        text = re.sub(r"[^\S\n]+", " ", text_of(Path(path), largest=LARGEST))
    except DataError as error:
        raise DataError(f"{error}; give a Markdown file with tables") from error
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LONGEST_LINE:
            raise DataError(f"{path}:{number} has {len(line)} letters; a line of a table has at most {LONGEST_LINE}")
        if re.search(rf"\d{{{MOST_DIGITS + 1}}}", line):
            raise DataError(f"{path}:{number} has a number of more than {MOST_DIGITS} digits, which is no figure")
    return text


def read_tables(text: str, source: str) -> list[ScoreTable]:
    """All score tables of a document; raises DataError, with ``source`` and line, for none or a broken one."""
    lines = text.splitlines()
    tables: list[ScoreTable] = []
    for start, line in enumerate(lines):
        name = _announced(line)
        if name:
            table = _table_below(unescaped(name), lines, start + 1, source)
            tables += [table] if table else []
    if not tables:
        raise DataError(
            f"{source} holds no score table; one needs a heading that ends in 'results' or '评估结果' and the columns"
            " | Token | Head | strategies ... |"
        )
    return tables


def has_score_tables(text: str) -> bool:
    """Whether a document has a score table below a heading that announces it."""
    lines = text.splitlines()
    return any(_announced(line) and _table_below("", lines, start + 1, "") for start, line in enumerate(lines))


def _announced(line: str) -> str:
    """The benchmark whose results a heading announces; empty for other lines."""
    if not _ANY_HEADING.fullmatch(line.strip()):
        return ""
    title = line.strip().lstrip("#").strip()
    for ending in ("评估结果", "results"):
        if title.lower().endswith(ending):
            name = title[: -len(ending)]
            return name.strip() if ending != "results" or not name[-1:].isalnum() else ""
    return ""


def _table_below(name: str, lines: Sequence[str], start: int, source: str) -> ScoreTable | None:
    """The first Token | Head table between a heading and the next one."""
    for index in range(start, len(lines)):
        if _ANY_HEADING.fullmatch(lines[index].strip()):
            return None
        header = cells_of(lines[index])
        if [cell.lower().rstrip("s") for cell in header[:2]] == ["token", "head"]:
            return _rows(name, header, lines, index, source)
    return None


def _rows(name: str, header: Sequence[str], lines: Sequence[str], start: int, source: str) -> ScoreTable:
    columns = tuple(map(plain, header[2:]))
    if not columns or len(set(columns)) < len(columns):
        raise DataError(
            f"{source}:{start + 1}: the columns of {shortened(name)} must be at least one strategy, each named once"
        )
    rows: list[ScoreRow] = []
    for index in range(start + 1, len(lines)):
        cells = cells_of(lines[index])
        if not cells:
            break
        if all(re.fullmatch(r":?-{3,}:?", cell) for cell in cells):
            continue
        where = f"{source}:{index + 1}"
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} cells in a table of {len(header)} columns")
        token = plain(cells[0]) or (rows[-1].token if rows else "")
        if not token:
            raise DataError(f"{where}: the first row of {shortened(name)} names no token budget")
        figures = {column: _figure(cell, where) for column, cell in zip(columns, cells[2:], strict=True)}
        rows.append(ScoreRow(token, plain(cells[1]), {key: kept for key, kept in figures.items() if kept}, index + 1))
    return ScoreTable(name, columns, tuple(rows))


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table, empty for other lines; an escaped bar does not end a cell."""
    line = line.strip()
    if not (len(line) > 1 and line.startswith("|") and line.endswith("|")):
        return []
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])]


def plain(text: str) -> str:
    """The text of a cell without emphasis and escapes."""
    return unescaped(re.sub(r"(?<!\\)\*\*", "", text)).strip()


def unescaped(text: str) -> str:
    """Text without Markdown escapes."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text))


def _figure(cell: str, where: str) -> PrintedFigure | None:
    text = cell.strip(_SIGNS)
    bold = text.startswith("**") and text.endswith("**") and len(text) > 4
    text = text.strip("*").strip()
    if text in _MISSING:
        return None
    match = _FIGURE.fullmatch(text)
    if match is None:
        raise DataError(f"{where}: {shortened(cell)!r} is neither a figure nor '-'")
    return PrintedFigure(Decimal(match.group(1)), bold)
