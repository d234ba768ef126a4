"""The locks of an output folder: one sweep at a time, or several that each run a part of its trials."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.errors import DataError
from headwise_lab.store.locations import is_local
from headwise_lab.store.lock import take
from headwise_lab.store.manifest import MANIFEST

if TYPE_CHECKING:
    from headwise_lab.sweeps.plan import Part

LOCK = f".{MANIFEST}.lock"  # a name that the store takes for its own, so that it may be there before the store is
PATIENCE = 1.0
"""Seconds to wait for a lock that somebody who only looks may hold."""


@contextmanager
def locked(folder: Path, part: Part | None = None) -> Iterator[None]:
    """Hold the lock of an output folder, which the system lets go however the process ends.

    Sweeps of different parts may hold it at once; one of the whole, or of the same part, is alone. Behind a URL there
    is no lock, and it is up to the user that no two run the same part; if they do, trials are run twice and count once.
    Raises DataError where another sweep is running in it, or it cannot be written to.
    """
    if not is_local(folder):
        yield
        return
    with ExitStack() as held:
        held.enter_context(_locked(folder, LOCK, alone=part is None))
        if part is not None:
            held.enter_context(_locked(folder, lock_of(name_of(part)), alone=True))
        yield


@contextmanager
def _locked(folder: Path, name: str, *, alone: bool) -> Iterator[None]:
    handle = _opened(folder, name)
    try:
        until = time.monotonic() + PATIENCE
        while not take(handle, alone=alone):
            if time.monotonic() > until:
                raise DataError(f"another sweep is running in {folder}; wait for it, or give --out another folder")
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def _opened(folder: Path, name: str) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror or error}); give --out a folder you may write to"
        ) from error


def lock_of(part_name: str) -> str:
    """The lock file of a part named by ``name_of``."""
    return f"{LOCK}.{part_name}" if part_name else LOCK


def name_of(part: Part | None) -> str:
    """A part as a piece of file names; nothing for all trials."""
    return "" if part is None else f"{part[0]}-of-{part[1]}"


def is_held(path: Path) -> bool:
    """Whether a lock file is held; changes nothing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not take(handle, alone=False)
    finally:
        os.close(handle)
