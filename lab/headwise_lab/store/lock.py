"""Advisory file locks; the operating system releases them however a process ends.

They also work between machines where the filesystem supports it. Where the system or the filesystem has no locks, every
process gets the lock.

Why not the package filelock: readers here share a lock in folders that they may only read. filelock's shared lock is a
database beside the file, which a reader would have to write. And where the system has no locks, filelock uses the
existence of a file, which remains after a process was killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def take(handle: int, *, alone: bool, wait: bool = False) -> bool:
    """Lock an open file, exclusively (``alone``) or shared; returns whether that succeeded. ``wait``: until it does."""
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
    """Hold the lock of a file; waits until other processes have released it.

    ``alone``: an exclusive lock; a missing file is created, and OSError is raised where that fails. Otherwise a shared
    lock, for readers; a missing file is neither created nor locked.
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
