"""The files in which official servers and judges take a benchmark's predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol, runtime_checkable

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks.base import Question


@attrs.frozen
class Submission:
    """A file's content and the ending of its name."""

    suffix: str
    content: bytes


@runtime_checkable
class Submits(Protocol):
    """A benchmark whose predictions somebody else can score."""

    def submission(self, questions: Sequence[Question], predictions: Sequence[str]) -> Submission:
        """The file with these predictions. Called without questions, it raises DataError if no file can be made."""


def json_submission(document: object) -> Submission:
    """A JSON file."""
    return Submission(".json", (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())


def excel_submission(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> Submission:
    """An Excel sheet whose first line has the column names; raises DataError where openpyxl is missing."""
    try:
        from openpyxl import Workbook
    except ImportError as error:
        raise DataError("the server wants an Excel file; install openpyxl: pip install 'headwise[excel]'") from error
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(list(columns))
    for row in rows:
        sheet.append([_cell(sheet, row.get(column)) for column in columns])
    stream = BytesIO()
    book.save(stream)
    return Submission(".xlsx", stream.getvalue())


def _cell(sheet: Any, value: object) -> object:
    """A cell whose text stays text, even if it begins with = like a formula. Characters that Excel refuses go."""
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    if not isinstance(value, str):
        return value
    text = ILLEGAL_CHARACTERS_RE.sub("", value)
    cell = WriteOnlyCell(sheet, text or None)
    cell.data_type = "s" if text else cell.data_type
    return cell
