"""Tab-separated files that carry their pictures inside. A picture is unpacked when its question is asked."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise.reading import text_of
from headwise_lab.benchmarks.base import Question
from headwise_lab.benchmarks.files import Entry, QuestionRow
from headwise_lab.benchmarks.pictures import format_of
from headwise_lab.store.atomic import put
from headwise_lab.store.cache_folder import cache

FOLDER = "pictures"  # in headwise's cache


@attrs.frozen(kw_only=True)
class EmbeddedRow(QuestionRow):
    """A question whose picture is text in its row."""

    picture: str

    def ready(self) -> Question:
        """The question with its picture unpacked into the cache; raises DataError where the text is no picture."""
        return attrs.evolve(self.question, image=unpacked(self.picture, self.entry))


def table(path: Path) -> list[Entry]:
    """The rows of a tab-separated file as column -> cell; quoted cells may hold tabs and line feeds."""
    text = text_of(path)
    usual = csv.field_size_limit(max(len(text), csv.field_size_limit()))  # a picture is longer than csv allows
    try:
        return _rows(path, text)
    finally:
        csv.field_size_limit(usual)


def _rows(path: Path, text: str) -> list[Entry]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    columns: list[str] = []
    entries: list[Entry] = []
    line = 1
    for cells in _cells(reader, path):
        if not columns:
            columns = cells
            again = next((name for name in columns if columns.count(name) > 1), None)
            if again is not None:
                raise DataError(f"{path}, line 1: the column {again!r} is there twice")
        elif len(cells) not in (0, len(columns)):
            raise DataError(f"{path}, line {line}: expected {len(columns)} columns, found {len(cells)}")
        elif cells:
            entries.append(Entry(path, line, cells[0], dict(zip(columns, cells, strict=True))))
        line = reader.line_num + 1
    return entries


def _cells(reader: Any, path: Path) -> Iterator[list[str]]:
    """The rows of a csv reader; raises DataError with the line where it can read no more."""
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def unpacked(text: str, entry: Entry) -> Path:
    """The file of a base64 picture, named after its content. DataError for text that is no picture, or a full cache."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise entry.wrong("the picture is not base64 text") from None
    try:
        suffix = f".{format_of(io.BytesIO(content), 'in this row').lower()}"
    except DataError as error:
        raise entry.wrong(str(error)) from error
    return _stored(content, suffix)


def _stored(content: bytes, suffix: str) -> Path:
    path = cache() / FOLDER / f"{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path, content, durable=False)
        except OSError as error:
            raise DataError(f"{path.parent} cannot be written to ({error.strerror}); set HEADWISE_CACHE") from error
    return path
