"""Pictures of a dataset's rows as files: each is written once, under a name that stays in its folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from headwise.errors import DataError
from headwise_lab.benchmarks.pictures import format_of


def save_picture(path: Path, cell: Any) -> None:
    """Write a picture's bytes as they are stored, unless the file exists; DataError for a cell without a picture."""
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
    name = format_of(io.BytesIO(content), "in this row")
    return {"JPEG": ".jpg"}.get(name, f".{name.lower()}")


def plain(name: Any) -> str:
    """The name of a file; raises DataError where it would lead out of its folder."""
    text = str(name)
    if not text or text in (".", "..") or any(mark in text for mark in "/\\\0"):
        raise DataError(f"a picture should have a plain name, found {text!r}")
    return text


def suffixed(name: Any) -> str:
    """The name of a photograph with its suffix, which some datasets leave out."""
    text = plain(name)
    return text if text.lower().endswith((".jpg", ".jpeg", ".png")) else f"{text}.jpg"
