"""CSV files that read back unchanged, and in which no spreadsheet finds a formula."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from typing import Any, TextIO

_LIVE = ("=", "+", "-", "@", "\t", "\r", "\n")
_FIGURES = re.compile(r"[-+]?(?:[\d.,]+(?:e[-+]?\d+)?|inf|nan)?[\d.,± %()≈↑↓★]*\*?", re.IGNORECASE)
"""Numbers, also with what our tables write behind them, such as an error or a verdict; and a dash alone."""


def csv_cell(value: Any) -> Any:
    """A value as a cell. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str) or _FIGURES.fullmatch(value):
        return value
    return f"'{value}" if value.lstrip(" \N{NO-BREAK SPACE}").startswith(_LIVE) else value


class CsvRows:
    """Writes rows into a file that was opened with ``newline=""``; every row ends with a line feed alone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._writer = csv.writer(self)  # it ends rows with \r\n: only then it quotes cells that contain \r or \n

    def add(self, cells: Iterable[Any]) -> None:
        """Write a row."""
        self._writer.writerow([csv_cell(cell) for cell in cells])

    def write(self, line: str) -> None:
        """Called by the ``csv`` module with one row."""
        whole = line.removesuffix("\r\n").encode("utf-8", "backslashreplace").decode()  # JSON may hold lone surrogates
        self._stream.write(f"{whole}\n")
