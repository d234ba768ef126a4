"""Lines of JSON that many processes add to one file, each line whole or not there at all.

Whoever holds the file's lock may repair its end: if the last line has no newline, its writer died.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def append(path: Path, line: bytes) -> None:
    """Add one line, which ends with a newline, and have it on disk before returning; the caller holds the lock.

    Raises OSError, as of a full disk, and leaves the file as it was: also where part of the line was written already.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _mended(handle)
        end = os.lseek(handle, 0, os.SEEK_END)
        try:
            _write(handle, line)
            os.fsync(handle)
        except BaseException as error:
            # whoever is interrupted with Ctrl-C once all is written keeps it
            if isinstance(error, OSError) or os.fstat(handle).st_size < end + len(line):
                os.ftruncate(handle, end)
            raise
    finally:
        os.close(handle)


def mend(path: Path) -> bool:
    """Make a file end with a whole line again; whether a torn one was dropped. The caller holds the lock."""
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR | os.O_APPEND)
    try:
        return _mended(handle)
    finally:
        os.close(handle)


def _mended(handle: int) -> bool:
    """Drop a last line that is torn, and end one that only lacks its newline; whether one was dropped."""
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
    """Write all of it: by one call, unless the system takes a part only, as where the disk is about to be full."""
    while content:
        content = content[os.write(handle, content) :]
