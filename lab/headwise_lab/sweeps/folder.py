"""What a sweep leaves in its output folder beside the store: its plan, what it is doing, and a lock while it runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.store import MANIFEST
from headwise_lab.sweeps.trials import Trial, plain, trial_from
from headwise_lab.whole_files import put

PLAN, PROGRESS = "plan.json", "progress.json"
LOCK = f".{MANIFEST}.lock"  # a name that the store takes for its own, so that it may be there before the store is
SCHEMA = 1
PATIENCE = 1.0
"""Seconds to wait for a lock that somebody who only looks may hold."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder, which the system lets go however the process ends.

    Raises DataError where another sweep is running in it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written to ({error.strerror or error}); give --out a folder you may write to"
        ) from error
    try:
        until = time.monotonic() + PATIENCE
        while not _lock(handle, alone=True):
            if time.monotonic() > until:
                raise DataError(f"another sweep is running in {folder}; wait for it, or give --out another folder")
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether a sweep is running in a folder, on this machine or, where its filesystem has locks, on another."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(handle, alone=False)
    finally:
        os.close(handle)


def _lock(handle: int, *, alone: bool) -> bool:
    """Take a lock, or tell that it cannot be had; a system without such locks gives it to everybody."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a filesystem without locks
        return True
    return True


def write_plan(folder: Path, title: str, trials: Sequence[Trial]) -> None:
    """Leave a sweep's trials for ``headwise status``."""
    told = {"schema": SCHEMA, "title": title, "trials": [plain(trial) for trial in trials]}
    _replace(folder / PLAN, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def read_plan(folder: Path) -> tuple[str, list[Trial]]:
    """Title and trials of the sweep in a folder; raises DataError where there is none, or it is not whole."""
    path = folder / PLAN
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return str(told["title"]), [trial_from(trial) for trial in told["trials"]]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give the --out folder of `headwise sweep`"
        ) from error
    except Exception as error:  # half-copied, edited, or of another version: cattrs has many names for that
        raise DataError(f"{path} is half-written or not ours; `headwise sweep` writes it again") from error


@attrs.frozen(kw_only=True)
class Progress:
    """What a sweep is doing: trials that run, and questions answered in so many seconds since it was started."""

    running: tuple[str, ...] = ()
    questions: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Questions per second; None before the first."""
        return self.questions / self.seconds if self.questions and self.seconds > 0 else None


def write_progress(folder: Path, progress: Progress) -> None:
    """Leave what a sweep is doing for ``headwise status``."""
    _replace(folder / PROGRESS, json.dumps(attrs.asdict(progress)) + "\n")


def read_progress(folder: Path) -> Progress:
    """What a sweep last said it was doing; nothing where that is missing or cannot be read."""
    try:
        told: Mapping[str, Any] = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        return Progress(
            running=tuple(map(str, told["running"])), questions=int(told["questions"]), seconds=float(told["seconds"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return Progress()


def _replace(path: Path, text: str) -> None:
    """Write a whole file under another name, then move it into place; the lock keeps other writers out."""
    try:
        put(path, text.encode(), durable=False)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error}); what is stored stays") from error
