"""The job folder: a sweep and its jobs exchange trials, claims, outcomes and signs of life in it, on a shared disk.

1. The sweep writes ``waiting/NAME``, a trial that no job has.
2. A job claims it by renaming it to ``claimed/JOB.NAME``, which succeeds for one job only.
3. The job runs it and writes ``outcomes/JOB.NAME``.
4. The sweep reads the outcome. If the trial is to be repeated, the sweep adds it under a new name. Only then it removes
   claim and outcome. So when a job's outcomes are gone, the job sees all trials that still wait.

Every file is written whole. NAME is GROUP-NUMBER: the place of the trial's group in ``work.json``, and a number that no
other trial has.

Submitit starts the jobs (as an array) and says how they ended. Which trial a job runs is decided here: a task of an
array belongs to one trial before it starts, while a job here keeps its model, takes the next trial that suits it, and
leaves its finished trials readable when it is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

from headwise_lab.store.atomic import put
from headwise_lab.sweeps.executor import AttemptResult
from headwise_lab.sweeps.scheduler import Group, choose
from headwise_lab.sweeps.trials import Trial, Work, plain, trial_from, work_from

PARTS = ("waiting", "claimed", "outcomes", "progress", "alive", "left")
STOP = "stop"
DRIVER = "driver"
ATTEMPTS = 20  # to remove the folder, into which jobs that are ending may still write


@attrs.frozen
class Pace:
    """Seconds between two looks at the folder, between two signs of life, and of silence until a job counts as dead."""

    look: float = 1.0
    beat: float = 10.0
    silence: float = 120.0


@attrs.frozen
class JobDir:
    """The folder, for the sweep and for its jobs."""

    folder: Path

    def content(self) -> tuple[Work, list[Group], Pace]:
        """What a job reads before its first trial."""
        found = self._get("work.json")
        groups = [(model, benchmark, seed) for model, benchmark, seed in found["groups"]]
        return work_from(found["work"]), groups, Pace(**found["pace"])

    # Trials: the sweep adds, jobs claim.

    def add(self, name: str, trial: Trial) -> None:
        """Add a waiting trial."""
        self._put(f"waiting/{name}", plain(trial))

    def waiting(self) -> list[str]:
        """Names of the waiting trials, sorted."""
        return self._names("waiting")

    def claim(self, job: str, mine: Group | None, groups: Sequence[Group]) -> tuple[str, Trial] | None:
        """Claim a waiting trial for this job, chosen as by ``scheduler.choose``; None where none waits."""
        while names := self.waiting():
            waiting = Counter(groups[group_of(name)] for name in names)
            others = [groups[group_of(name)] for other, name in self.claims() if other != job]
            wanted = choose(mine, waiting, others)
            name = next(name for name in names if groups[group_of(name)] == wanted)
            with suppress(FileNotFoundError):  # another job was faster
                return name, self.take(job, name)
        return None

    def take(self, job: str, name: str) -> Trial:
        """Claim the trial ``name``; raises FileNotFoundError where another job has it."""
        path = self.folder / "claimed" / f"{job}.{name}"
        os.rename(self.folder / "waiting" / name, path)
        return trial_from(self._get(f"claimed/{path.name}"))

    def claims(self) -> list[tuple[str, str]]:
        """(job, name) of every trial that is claimed and not settled."""
        return _pairs(self._names("claimed"))

    # Outcomes: jobs finish, the sweep settles.

    def finish(self, job: str, name: str, outcome: AttemptResult) -> None:
        """Write how a job's trial ended."""
        self._put(f"outcomes/{job}.{name}", attrs.asdict(outcome, recurse=False))

    def outcomes(self) -> Iterator[tuple[str, str, AttemptResult]]:
        """(job, name, outcome) of every trial that has ended and is not settled."""
        for job, name in _pairs(self._names("outcomes")):
            yield job, name, AttemptResult(**self._get(f"outcomes/{job}.{name}"))

    def settle(self, job: str, name: str) -> None:
        """Remove the claim and the outcome of a trial, which the sweep has processed."""
        for part in ("claimed", "outcomes"):
            (self.folder / part / f"{job}.{name}").unlink(missing_ok=True)

    def settled(self, job: str) -> bool:
        """Whether the sweep has processed all outcomes of a job, and the job has no trial."""
        return not any(other == job for part in ("claimed", "outcomes") for other, _ in _pairs(self._names(part)))

    # Progress and signs of life.

    def advance(self, job: str, name: str, answered: int) -> None:
        """Write how many questions of a job's trial are answered."""
        self._put(f"progress/{job}", [name, answered])

    def progress(self) -> Iterator[tuple[str, int]]:
        """(name, questions answered so far) of the trials that jobs run."""
        for job in self._names("progress"):
            name, answered = self._get(f"progress/{job}")
            yield name, answered

    def beat(self, who: str, sign: str = "") -> None:
        """Write a sign of life that differs from the one before, or the given ``sign``, such as STOP."""
        put(self.folder / "alive" / who, (sign or str(time.monotonic())).encode(), durable=False)

    def sign(self, who: str) -> str | None:
        """The last sign of life; None where there was none. Raises FileNotFoundError where the job folder is gone."""
        try:
            return (self.folder / "alive" / who).read_text(encoding="utf-8")
        except FileNotFoundError:
            (self.folder / "work.json").stat()  # raises where the whole folder is gone
            return None

    def leave(self, job: str) -> None:
        """Note that a job ends on purpose: no trial is left, or it has little time left."""
        self._put(f"left/{job}", {})

    def has_left(self, job: str) -> bool:
        """Whether a job has ended on purpose."""
        return (self.folder / "left" / job).exists()

    def _names(self, part: str) -> list[str]:
        return sorted(name for name in os.listdir(self.folder / part) if not name.startswith("."))

    def _put(self, name: str, content: object) -> None:
        put(self.folder / name, json.dumps(content).encode(), durable=False)

    def _get(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


def group_of(name: str) -> int:
    """The place of a trial's group in the list of groups."""
    return int(name.partition("-")[0])


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(job, name) for job, _, name in (text.partition(".") for text in names)]


@contextmanager
def opened(parent: Path, work: Work, groups: Sequence[Group], pace: Pace) -> Iterator[JobDir]:
    """A new job folder in ``parent``; at the end it is removed, and ``parent`` too where nothing else is in it."""
    parent.mkdir(parents=True, exist_ok=True)
    job_dir = JobDir(Path(tempfile.mkdtemp(dir=parent, prefix="sweep-")).resolve())
    try:
        for part in PARTS:
            (job_dir.folder / part).mkdir()
        job_dir.beat(DRIVER)
        job_dir._put("work.json", {"work": plain(work), "groups": list(groups), "pace": attrs.asdict(pace)})
        yield job_dir
    finally:
        _remove(job_dir.folder)
        with suppress(OSError):
            parent.rmdir()


def _remove(folder: Path) -> None:
    """Remove a folder; tried several times, because jobs that are ending may still write into it."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
