"""Official files written row by row: JSON with a question a line, pictures under plain names, each once."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from headwise.errors import DataError


class Members:
    """The members of a JSON array or object, written one a line as they come."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._empty = True

    def add(self, value: object, key: str | None = None) -> None:
        """Write one member; ``key`` in an object."""
        named = "" if key is None else f"{json.dumps(key, ensure_ascii=False)}: "
        self._stream.write(("\n" if self._empty else ",\n") + named + json.dumps(value, ensure_ascii=False))
        self._empty = False


@contextmanager
def members(path: Path, before: str, after: str) -> Iterator[Members]:
    """A JSON file whose members stand between ``before`` and ``after``."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(before)
        yield Members(stream)
        stream.write(f"\n{after}\n")


def save_picture(path: Path, cell: Any) -> None:
    """Write a picture's bytes as they are stored, unless it is there; DataError for a cell without a picture."""
    if not path.exists():
        content = picture_bytes(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def picture_bytes(cell: Any) -> bytes:
    """The bytes of a cell of a picture column, which is {"bytes": ..., "path": ...} or the bytes alone."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(content, bytes):
        raise DataError(f"a picture should be bytes, or a record with them under 'bytes', found {type(cell).__name__}")
    return content


def suffix_of(content: bytes) -> str:
    """The usual suffix of a picture's format; raises DataError where the bytes are no picture."""
    from headwise_lab.benchmarks.pictures import format_of

    name = format_of(io.BytesIO(content), "in this row")
    return {"JPEG": ".jpg"}.get(name, f".{name.lower()}")


def plain(name: Any) -> str:
    """A name that stays in its folder; raises DataError for any other."""
    text = str(name)
    if not text or text in (".", "..") or any(mark in text for mark in "/\\\0"):
        raise DataError(f"a picture should have a plain name, found {text!r}")
    return text


def suffixed(name: Any) -> str:
    """The name of a photograph, which some datasets give without its suffix."""
    text = plain(name)
    return text if text.lower().endswith((".jpg", ".jpeg", ".png")) else f"{text}.jpg"
