"""What a sweep writes into its output folder beside the store: its plan, its progress, and a lock while it runs.

Several sweeps may share a folder: each runs a part ``(i, n)`` of the trials and writes a progress file of its own.
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
    "PLAN", "SweepProgress", "is_locked", "locked", "read_plan", "read_progress", "write_plan", "write_progress",
]  # fmt: skip

PLAN, PROGRESS = "plan.json", "progress"
SCHEMA = 1
SILENCE = 900.0
"""Behind a URL there are no locks: a sweep whose progress file is older than so many seconds counts as ended."""


def is_locked(folder: Path) -> bool:
    """Whether a sweep is running in a folder, on this machine or, where its filesystem has locks, on another.

    Behind a URL: whether a progress file says so and is not older than SILENCE.
    """
    if is_local(folder):
        return any(is_held(path) for path in [folder / LOCK, *folder.glob(f"{LOCK}.*")])
    return any(_is_running(progress) for progress in _all_progress(folder).values())


def write_plan(folder: Path, title: str, trials: Sequence[Trial]) -> None:
    """Write a sweep's title and trials for ``headwise status``."""
    content = {"schema": SCHEMA, "title": title, "trials": [plain(trial) for trial in trials]}
    _replace(folder, PLAN, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_plan(folder: Path) -> tuple[str, list[Trial]]:
    """Title and trials of the sweep in a folder; raises DataError where there is none, or it is not whole."""
    path = folder / PLAN
    try:
        content = json.loads(path.read_bytes() if is_local(folder) else _loaded(folder))
        return str(content["title"]), [trial_from(trial) for trial in content["trials"]]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give the --out folder of `headwise sweep`"
        ) from error
    except DataError:
        raise
    except Exception as error:  # half-copied, edited or of another version: cattrs has many exceptions for that
        raise DataError(
            f"{path} is half-written, or headwise did not write it; `headwise sweep` writes it again"
        ) from error


def _loaded(folder: Path) -> bytes:
    found = load(folder, [PLAN])
    if not found:
        raise DataError(f"{folder / PLAN} is not there; give the --out folder of `headwise sweep`")
    return found[PLAN]


@attrs.frozen(kw_only=True)
class SweepProgress:
    """What a sweep is doing: the ids of running trials, and the questions answered in the ``seconds`` since its start.

    ``heard``: when this was written, in seconds since 1970.
    """

    running: tuple[str, ...] = ()
    questions: int = 0
    seconds: float = 0.0
    heard: float = attrs.field(default=0.0, eq=False)

    @property
    def rate(self) -> float | None:
        """Questions per second; None before the first."""
        return self.questions / self.seconds if self.questions and self.seconds > 0 else None


def write_progress(folder: Path, progress: SweepProgress, part: Part | None = None) -> None:
    """Write what a sweep is doing for ``headwise status``."""
    stamped = attrs.evolve(progress, heard=time.time())
    _replace(folder, _progress_file(part), json.dumps(attrs.asdict(stamped)) + "\n")


def read_progress(folder: Path) -> SweepProgress:
    """The last progress of all parts that still run, as that of one sweep; of all parts where none runs.

    Files that are missing or cannot be read are left out. ``seconds`` is chosen so that the rates of the parts add up.
    """
    found = _all_progress(folder)
    running = {name: progress for name, progress in found.items() if _runs(folder, name, progress)}
    return _merged(list((running or found).values()))


def _merged(parts: Sequence[SweepProgress]) -> SweepProgress:
    if len(parts) == 1:
        return parts[0]
    rate = sum(part.rate or 0.0 for part in parts)
    questions = sum(part.questions for part in parts)
    return SweepProgress(
        running=tuple(dict.fromkeys(name for part in parts for name in part.running)),
        questions=questions,
        seconds=questions / rate if rate else max((part.seconds for part in parts), default=0.0),
        heard=max((part.heard for part in parts), default=0.0),
    )


def _runs(folder: Path, name: str, progress: SweepProgress) -> bool:
    """Whether the sweep that wrote the file ``name`` runs: it holds its lock; behind a URL, the file is recent."""
    if not is_local(folder):
        return _is_running(progress)
    part = name.removeprefix(PROGRESS).removesuffix(".json").removeprefix("-")
    return is_held(folder / lock_of(part))


def _is_running(progress: SweepProgress) -> bool:
    return bool(progress.running) and time.time() - progress.heard < SILENCE


def _progress_file(part: Part | None) -> str:
    return f"{PROGRESS}{'-' * (part is not None)}{name_of(part)}.json"


def _all_progress(folder: Path) -> dict[str, SweepProgress]:
    """Name of a progress file -> its content, for all parts whose file can be read."""
    if is_local(folder):
        contents = {path.name: _content(path) for path in sorted(folder.glob(f"{PROGRESS}*.json"))}
    else:
        names = [name for name in files_in(folder) if "/" not in name and name.startswith(PROGRESS)]
        contents = load(folder, [name for name in names if name.endswith(".json")])
    return {name: found for name, content in contents.items() if (found := _progress(content)) is not None}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _progress(content: bytes) -> SweepProgress | None:
    try:
        read: Mapping[str, Any] = json.loads(content)
        return SweepProgress(
            running=tuple(map(str, read["running"])),
            questions=int(read["questions"]),
            seconds=float(read["seconds"]),
            heard=float(read.get("heard", 0.0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _replace(folder: Path, name: str, text: str) -> None:
    """Write a file whole, so that no reader sees half of it."""
    if not is_local(folder):
        send(folder, {name: text.encode()})
        return
    try:
        put(folder / name, text.encode(), durable=False)
    except OSError as error:
        raise DataError(
            f"{folder / name} cannot be written ({error.strerror or error}); what is stored stays"
        ) from error
