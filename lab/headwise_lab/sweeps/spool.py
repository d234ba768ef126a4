"""A folder through which a sweep and its jobs talk, on a disk that both see: trials, claims, outcomes, signs of life.

``waiting/NAME`` is a trial that nobody has; a job claims it by moving it to ``claimed/JOB.NAME``, which only one can,
and writes ``outcomes/JOB.NAME``. The sweep reads that, puts the trial back under a new name if it is to be run once
more, and only then clears claim and outcome away, so a job whose outcomes are gone knows what still waits. Files
appear whole. Submitit starts the jobs (as an array) and tells what became of them; what they run stays here, because a
task of an array is bound to one trial before it starts, and a job here keeps its model, takes the next trial that
suits it, and leaves what is finished readable when it is killed. NAME is GROUP-NUMBER: the place of the trial's group
in ``work.json``, and a number that no other trial has.
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
from headwise_lab.sweeps.desk import Group, choose
from headwise_lab.sweeps.executor import Outcome
from headwise_lab.sweeps.trials import Trial, Work, plain, trial_from, work_from

PARTS = ("waiting", "claimed", "outcomes", "progress", "alive", "left")
STOP = "stop"
DRIVER = "driver"
ATTEMPTS = 20  # to remove the folder while jobs that are ending still write to it


@attrs.frozen
class Pace:
    """Seconds: between two looks at the folder, between two signs of life, and without one until somebody is dead."""

    look: float = 1.0
    beat: float = 10.0
    silence: float = 120.0


@attrs.frozen
class Spool:
    """The folder, as the sweep and its jobs see it."""

    folder: Path

    def content(self) -> tuple[Work, list[Group], Pace]:
        """What a job has to know before its first trial."""
        told = json.loads((self.folder / "work.json").read_text(encoding="utf-8"))
        groups = [(model, benchmark, seed) for model, benchmark, seed in told["groups"]]
        return work_from(told["work"]), groups, Pace(**told["pace"])

    # Trials: the sweep adds, jobs claim.

    def add(self, name: str, trial: Trial) -> None:
        """A trial waits."""
        self._put(f"waiting/{name}", plain(trial))

    def waiting(self) -> list[str]:
        """Names of the trials that wait, in order."""
        return self._names("waiting")

    def claim(self, job: str, mine: Group | None, groups: Sequence[Group]) -> tuple[str, Trial] | None:
        """A trial that is this job's from now on, preferably of the group ``mine``; None where none waits."""
        while names := self.waiting():
            waiting = Counter(groups[group_of(name)] for name in names)
            others = [groups[group_of(name)] for other, name in self.claims() if other != job]
            wanted = choose(mine, waiting, others)
            name = next(name for name in names if groups[group_of(name)] == wanted)
            with suppress(FileNotFoundError):  # another was faster
                return name, self.take(job, name)
        return None

    def take(self, job: str, name: str) -> Trial:
        """Claim this trial; raises FileNotFoundError where another job has."""
        path = self.folder / "claimed" / f"{job}.{name}"
        os.rename(self.folder / "waiting" / name, path)
        return trial_from(json.loads(path.read_text(encoding="utf-8")))

    def claims(self) -> list[tuple[str, str]]:
        """(job, name) of every trial that has been claimed and is not settled."""
        return _pairs(self._names("claimed"))

    # Outcomes: jobs finish, the sweep settles.

    def finish(self, job: str, name: str, outcome: Outcome) -> None:
        """A job's trial is over."""
        self._put(f"outcomes/{job}.{name}", attrs.asdict(outcome, recurse=False))

    def outcomes(self) -> Iterator[tuple[str, str, Outcome]]:
        """(job, name, outcome) of every trial that is over and not settled."""
        for job, name in _pairs(self._names("outcomes")):
            yield job, name, Outcome(**self._get(f"outcomes/{job}.{name}"))

    def settle(self, job: str, name: str) -> None:
        """An outcome has been dealt with."""
        for part in ("claimed", "outcomes"):
            (self.folder / part / f"{job}.{name}").unlink(missing_ok=True)

    def settled(self, job: str) -> bool:
        """Whether all outcomes of a job have been dealt with."""
        return not any(other == job for part in ("claimed", "outcomes") for other, _ in _pairs(self._names(part)))

    # Progress and signs of life.

    def advance(self, job: str, name: str, answered: int) -> None:
        """So many questions of a job's trial are answered."""
        self._put(f"progress/{job}", [name, answered])

    def progress(self) -> Iterator[tuple[str, int]]:
        """(name, questions answered so far) of what jobs run."""
        for job in self._names("progress"):
            name, answered = self._get(f"progress/{job}")
            yield name, answered

    def beat(self, who: str, sign: str = "") -> None:
        """Give a sign of life, which differs from the one before, or the ``sign`` STOP."""
        put(self.folder / "alive" / who, (sign or str(time.monotonic())).encode(), durable=False)

    def sign(self, who: str) -> str | None:
        """The last sign of life; None where there has been none; raises FileNotFoundError where the spool is gone."""
        try:
            return (self.folder / "alive" / who).read_text(encoding="utf-8")
        except FileNotFoundError:
            (self.folder / "work.json").stat()
            return None

    def leave(self, job: str) -> None:
        """A job ends because there is nothing left to do, or it has little time left."""
        self._put(f"left/{job}", {})

    def has_left(self, job: str) -> bool:
        """Whether a job ended like that."""
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
def opened(parent: Path, work: Work, groups: Sequence[Group], pace: Pace) -> Iterator[Spool]:
    """A new spool in ``parent``, which is removed at the end, and the parent with it when nothing else is in it."""
    parent.mkdir(parents=True, exist_ok=True)
    spool = Spool(Path(tempfile.mkdtemp(dir=parent, prefix="sweep-")).resolve())
    try:
        for part in PARTS:
            (spool.folder / part).mkdir()
        spool.beat(DRIVER)
        spool._put("work.json", {"work": plain(work), "groups": list(groups), "pace": attrs.asdict(pace)})
        yield spool
    finally:
        _remove(spool.folder)
        with suppress(OSError):
            parent.rmdir()


def _remove(folder: Path) -> None:
    """Jobs that are ending may write a last file while the folder is being removed."""
    for _ in range(ATTEMPTS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
