"""The locks of an output folder: one sweep at a time, or several sweeps that each run a part of the trials."""

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

LOCK = f".{MANIFEST}.lock"  # the store accepts files with this beginning in a folder that it has not opened yet
PATIENCE = 1.0
"""Seconds to wait for a lock: ``headwise status`` holds it for a moment."""


@contextmanager
def locked(folder: Path, part: Part | None = None) -> Iterator[None]:
    """Hold the lock of an output folder; the operating system releases it however the process ends.

    Sweeps of different parts may hold it at the same time; a sweep of all trials excludes every other, and so does one
    of the same part. Behind a URL there are no locks: if users run the same part twice, its trials are run twice and
    counted once. Raises DataError where another sweep is running in the folder, or it cannot be written to.
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
    """A part as it stands in file names; an empty text for all trials."""
    return "" if part is None else f"{part[0]}-of-{part[1]}"


def is_held(path: Path) -> bool:
    """Whether a process holds a lock file; creates no file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not take(handle, alone=False)
    finally:
        os.close(handle)
