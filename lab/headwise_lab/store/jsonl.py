"""Appending lines of JSON to a file that several processes share; a reader finds all of a line or nothing.

The process that holds the file's lock may repair the file's end: a last line without newline means its writer died.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def append(path: Path, line: bytes) -> None:
    """Append one line, which ends with a newline; it is on disk when this returns. The caller holds the lock.

    Where that fails (a full disk), raises OSError and cuts off what was already written of the line.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _mended(handle)
        end = os.lseek(handle, 0, os.SEEK_END)
        try:
            _write(handle, line)
            os.fsync(handle)
        except BaseException as error:
            # After Ctrl-C the line stays if all of it was written.
            if isinstance(error, OSError) or os.fstat(handle).st_size < end + len(line):
                os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)


def mend(path: Path) -> bool:
    """Repair the end of a file; returns whether a torn last line was dropped. The caller holds the lock."""
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR | os.O_APPEND)
    try:
        return _mended(handle)
    finally:
        os.close(handle)


def _mended(handle: int) -> bool:
    """Drop a torn last line, or add the newline that a whole one lacks; returns whether a line was dropped."""
    end = os.lseek(handle, 0, os.SEEK_END)
    if not end or _read(handle, end - 1, end) == b"\n":
        return False
    content = _read(handle, 0, end)
    begin = content.rfind(b"\n") + 1
    try:
        json.loads(content[begin:])
    except (ValueError, RecursionError):
        os.ftruncate(handle, begin)
        os.fsync(handle)
        return True
    _write(handle, b"\n")
    os.fsync(handle)
    return False


def _read(handle: int, begin: int, end: int) -> bytes:
    os.lseek(handle, begin, os.SEEK_SET)
    pieces = []
    while begin < end and (piece := os.read(handle, end - begin)):
        pieces.append(piece)
        begin += len(piece)
    return b"".join(pieces)


def _write(handle: int, content: bytes) -> None:
    """Write all of ``content``; one call is enough unless the system writes only a part, as on a nearly full disk."""
    while content:
        content = content[os.write(handle, content) :]
