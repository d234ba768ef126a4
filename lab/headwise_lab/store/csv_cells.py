"""CSV that reads back as it was written, no cell of which another program takes for a formula."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

_LIVE = ("=", "+", "-", "@", "\t", "\r", "\n")
_FIGURES = re.compile(r"[-+]?(?:[\d.,]+(?:e[-+]?\d+)?|inf|nan)?[\d.,± %()≈↑↓★]*\*?", re.IGNORECASE)
"""Numbers with what we write behind them, such as an error or a verdict, and a dash alone."""


def csv_cell(value: Any) -> Any:
    """A value as a cell: a text that a spreadsheet would compute gets an apostrophe before it, numbers stay numbers."""
    if not isinstance(value, str) or _FIGURES.fullmatch(value):
        return value
    return f"'{value}" if value.lstrip(" \N{NO-BREAK SPACE}").startswith(_LIVE) else value


class CsvRows:
    """Rows of a file that was opened with ``newline=""``; each ends with a line feed alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writer = csv.writer(self)  # ends lines with both marks, for only then it quotes cells that have either

    def add(self, cells: Iterable[Any]) -> None:
        """Write a row."""
        self._writer.writerow([csv_cell(cell) for cell in cells])

    def write(self, line: str) -> None:
        """What the ``csv`` module hands over: one row."""
        whole = line.removesuffix("\r\n").encode("utf-8", "backslashreplace").decode()  # JSON may spell half a letter
        self._stream.write(f"{whole}\n")
