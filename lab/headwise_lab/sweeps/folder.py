"""What a sweep leaves in its output folder beside the store: its plan, what it is doing, and a lock while it runs.

Several sweeps may share a folder, each with a part ``(i, n)`` of the trials, and a note of its own of what it is doing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from headwise.errors import DataError
from headwise_lab.store.atomic import put
from headwise_lab.store.locations import files_in, is_local, load, send
from headwise_lab.sweeps.locks import LOCK, is_held, lock_of, locked, name_of
from headwise_lab.sweeps.trials import Trial, plain, trial_from

if TYPE_CHECKING:
    from headwise_lab.sweeps.plan import Part

__all__ = [
    "PLAN", "Progress", "is_locked", "locked", "read_plan", "read_progress", "write_plan", "write_progress",
]  # fmt: skip

PLAN, PROGRESS = "plan.json", "progress"
SCHEMA = 1
SILENCE = 900.0
"""Seconds without a note after which a sweep behind a URL, where there are no locks, is taken to have ended."""


def is_locked(folder: Path) -> bool:
    """Whether a sweep is running in a folder, on this machine or, where its filesystem has locks, on another.

    Behind a URL: whether one was running trials when it last said so, which is not long ago.
    """
    if is_local(folder):
        return any(is_held(path) for path in [folder / LOCK, *folder.glob(f"{LOCK}.*")])
    return any(_is_running(told) for told in _notes(folder).values())


def write_plan(folder: Path, title: str, trials: Sequence[Trial]) -> None:
    """Leave a sweep's trials for ``headwise status``."""
    told = {"schema": SCHEMA, "title": title, "trials": [plain(trial) for trial in trials]}
    _replace(folder, PLAN, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def read_plan(folder: Path) -> tuple[str, list[Trial]]:
    """Title and trials of the sweep in a folder; raises DataError where there is none, or it is not whole."""
    path = folder / PLAN
    try:
        told = json.loads(path.read_bytes() if is_local(folder) else _loaded(folder))
        return str(told["title"]), [trial_from(trial) for trial in told["trials"]]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give the --out folder of `headwise sweep`"
        ) from error
    except DataError:
        raise
    except Exception as error:  # half-copied, edited, or of another version: cattrs has many names for that
        raise DataError(f"{path} is half-written or not ours; `headwise sweep` writes it again") from error


def _loaded(folder: Path) -> bytes:
    found = load(folder, [PLAN])
    if not found:
        raise DataError(f"{folder / PLAN} is not there; give the --out folder of `headwise sweep`")
    return found[PLAN]


@attrs.frozen(kw_only=True)
class Progress:
    """What a sweep is doing: trials that run, and questions answered in so many seconds since it was started.

    ``heard``: when it said so, in seconds since 1970.
    """

    running: tuple[str, ...] = ()
    questions: int = 0
    seconds: float = 0.0
    heard: float = attrs.field(default=0.0, eq=False)

    @property
    def rate(self) -> float | None:
        """Questions per second; None before the first."""
        return self.questions / self.seconds if self.questions and self.seconds > 0 else None


def write_progress(folder: Path, progress: Progress, part: Part | None = None) -> None:
    """Leave what a sweep is doing for ``headwise status``."""
    told = attrs.evolve(progress, heard=time.time())
    _replace(folder, _note_of(part), json.dumps(attrs.asdict(told)) + "\n")


def read_progress(folder: Path) -> Progress:
    """What the sweeps of all parts that still run last said they were doing, as if they were one.

    Where none runs, what all of them said. What is missing or cannot be read is left out. The seconds are such that
    the rates of the parts add up.
    """
    notes = _notes(folder)
    running = {name: told for name, told in notes.items() if _runs(folder, name, told)}
    return _merged(list((running or notes).values()))


def _merged(parts: Sequence[Progress]) -> Progress:
    if len(parts) == 1:
        return parts[0]
    rate = sum(part.rate or 0.0 for part in parts)
    questions = sum(part.questions for part in parts)
    return Progress(
        running=tuple(dict.fromkeys(name for part in parts for name in part.running)),
        questions=questions,
        seconds=questions / rate if rate else max((part.seconds for part in parts), default=0.0),
        heard=max((part.heard for part in parts), default=0.0),
    )


def _runs(folder: Path, name: str, told: Progress) -> bool:
    """Whether the sweep that left a note runs: it holds its lock, or behind a URL was heard not long ago."""
    if not is_local(folder):
        return _is_running(told)
    part = name.removeprefix(PROGRESS).removesuffix(".json").removeprefix("-")
    return is_held(folder / lock_of(part))


def _is_running(told: Progress) -> bool:
    return bool(told.running) and time.time() - told.heard < SILENCE


def _note_of(part: Part | None) -> str:
    return f"{PROGRESS}{'-' * (part is not None)}{name_of(part)}.json"


def _notes(folder: Path) -> dict[str, Progress]:
    """Name of a note -> what it says, of all parts whose note can be read."""
    if is_local(folder):
        contents = {path.name: _content(path) for path in sorted(folder.glob(f"{PROGRESS}*.json"))}
    else:
        names = [name for name in files_in(folder) if "/" not in name and name.startswith(PROGRESS)]
        contents = load(folder, [name for name in names if name.endswith(".json")])
    notes = {name: _progress(content) for name, content in contents.items()}
    return {name: told for name, told in notes.items() if told is not None}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _progress(content: bytes) -> Progress | None:
    try:
        told: Mapping[str, Any] = json.loads(content)
        return Progress(
            running=tuple(map(str, told["running"])),
            questions=int(told["questions"]),
            seconds=float(told["seconds"]),
            heard=float(told.get("heard", 0.0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _replace(folder: Path, name: str, text: str) -> None:
    """Write a file whole, so that who reads it never sees half of it."""
    if not is_local(folder):
        send(folder, {name: text.encode()})
        return
    try:
        put(folder / name, text.encode(), durable=False)
    except OSError as error:
        raise DataError(
            f"{folder / name} cannot be written ({error.strerror or error}); what is stored stays"
        ) from error
