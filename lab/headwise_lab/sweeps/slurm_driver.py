"""The executor ``slurm`` in the user's process: it writes trials into the job folder and reads there what jobs did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import attrs

from headwise_lab.sweeps.executor import Advanced, AttemptResult, Ended, Started, Tell
from headwise_lab.sweeps.job_dir import DRIVER, STOP, JobDir, Pace
from headwise_lab.sweeps.slurm_site import Site
from headwise_lab.sweeps.trials import Trial

if TYPE_CHECKING:
    from submitit import Job

PATIENCE = 20.0
"""Seconds that jobs on this machine get to notice that they have to end."""


@attrs.define
class _OpenTrial:
    """A trial that has not ended, and the answered questions that were reported of it; None before it was started."""

    trial: Trial
    reported: int | None = None


@attrs.define
class _Job:
    """A submitted job: its last sign of life, and when that sign was first seen."""

    handle: Job[None]
    sign: str | None = None
    since: float = attrs.field(factory=time.monotonic)


class Driver:
    """One run of the executor: submits jobs, and passes on what they write."""

    def __init__(self, job_dir: JobDir, site: Site, trials: Sequence[Trial], tell: Tell, pace: Pace) -> None:
        self._job_dir, self._site, self._tell, self._pace = job_dir, site, tell, pace
        self._groups = {group: number for number, group in enumerate(job_dir.content()[1])}
        self._numbers, self._names = count(1), count(1)
        self._open: dict[str, _OpenTrial] = {}
        self._jobs: dict[str, _Job] = {}
        self._beaten = 0.0
        for trial in trials:
            self._add(trial)
        self._unclaimed = set(self._open)

    def run(self, jobs: int) -> None:
        """Keep ``jobs`` jobs running while trials wait, until every trial has ended."""
        while self._open:
            self._beat()
            self._staff(jobs)
            time.sleep(self._pace.look)
            self._look()
            self._bury()

    def close(self) -> None:
        """End every job."""
        with suppress(OSError):
            self._job_dir.beat(DRIVER, STOP)
        self._site.end([job.handle for job in self._jobs.values()], PATIENCE)

    def _add(self, trial: Trial) -> None:
        name = f"{self._groups[trial.group]:05d}-{next(self._numbers):06d}"
        self._open[name] = _OpenTrial(trial)
        self._job_dir.add(name, trial)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten > self._pace.beat:
            self._beaten = time.monotonic()
            self._job_dir.beat(DRIVER)

    def _staff(self, jobs: int) -> None:
        """Submit jobs for trials that already waited at the last look: a trial to be repeated goes to its old job."""
        waiting = set(self._job_dir.waiting())
        wanted = min(jobs - len(self._jobs), len(waiting & self._unclaimed))
        self._unclaimed = waiting
        if wanted > 0:
            names = [f"job{next(self._names)}" for _ in range(wanted)]
            for name, handle in zip(names, self._site.submit(names), strict=True):
                self._jobs[name] = _Job(handle)

    def _look(self) -> None:
        """Report what the jobs have written since the last look."""
        for _, name in self._job_dir.claims():
            self._start(name)
        for name, answered in self._job_dir.progress():
            found = self._open.get(name)
            if found is not None and found.reported is not None and answered > found.reported:
                self._tell(Advanced(found.trial.id, answered - found.reported))
                found.reported = answered
        for job, name, outcome in self._job_dir.outcomes():
            self._end(job, name, outcome)

    def _start(self, name: str) -> None:
        found = self._open.get(name)
        if found is not None and found.reported is None:
            found.reported = 0
            self._tell(Started(found.trial.id))

    def _end(self, job: str, name: str, outcome: AttemptResult) -> None:
        """Report the end of a trial, unless it was given up before; a trial to be repeated is added before settling."""
        self._start(name)
        found = self._open.pop(name, None)
        if found is not None and self._tell(Ended(found.trial.id, outcome)):
            self._add(found.trial)
        self._job_dir.settle(job, name)

    def _bury(self) -> None:
        """Report the trials of jobs that have died as failed; a job that died before its first trial fails the next."""
        over = set(self._site.over({name: job.handle for name, job in self._jobs.items()}))
        silent = self._silent() - over
        if not over | silent:
            return
        self._site.end([self._jobs[name].handle for name in silent], 0.0)
        if not self._site.here and not all(map(self._job_dir.has_left, over)):
            time.sleep(self._pace.look * 5)  # on a shared disk, the last files of a job may become visible late
        self._look()
        for name in over | silent:
            self._lose(name, self._jobs.pop(name))

    def _silent(self) -> set[str]:
        """Jobs whose sign of life has not changed for ``pace.silence`` seconds; not those that never gave one."""
        for name, job in self._jobs.items():
            sign = self._job_dir.sign(name)
            if sign != job.sign:
                job.sign, job.since = sign, time.monotonic()
        now = time.monotonic()
        return {n for n, job in self._jobs.items() if job.sign is not None and now - job.since > self._pace.silence}

    def _lose(self, job: str, lost: _Job) -> None:
        had = [name for other, name in self._job_dir.claims() if other == job]
        if not had and not self._job_dir.has_left(job):
            had = self._next(job)
        words = self._site.last_words(lost.handle)
        for name in had:
            self._end(job, name, AttemptResult(error=words))

    def _next(self, job: str) -> list[str]:
        """Claim a waiting trial in the name of a job that died before it claimed one."""
        for name in self._job_dir.waiting():
            with suppress(FileNotFoundError):
                self._job_dir.take(job, name)
                return [name]
        return []
