"""Advisory locks that the system lets go however a process ends, also between machines where the filesystem has them.

A system or a filesystem without such locks gives them to everybody.

Not filelock: what is locked here is the very file that is appended to, and readers share its lock in folders that they
may only read. filelock's shared lock is a database beside the file, which a reader would have to write, and without
the system's locks it takes a file for the lock, which outlives a killed process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def take(handle: int, *, alone: bool, wait: bool = False) -> bool:
    """Take the lock of an open file, for oneself ``alone`` or shared; False if others hold it, unless this waits."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a filesystem without locks
        return True
    return True


@contextmanager
def held(path: Path, *, alone: bool = True) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing; waits for those who hold it. Raises OSError.

    Not ``alone``: many may, to read; this changes nothing, and where the file is missing, nobody can be waited for.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT if alone else os.O_RDONLY, 0o666)
    except OSError:
        if alone:
            raise
        yield
        return
    try:
        take(handle, alone=alone, wait=True)
        yield
    finally:
        os.close(handle)
