"""The side of the executor ``slurm`` that stays with the user: trials go into the spool, events come out of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

import attrs

from headwise_lab.sweeps.executor import Advanced, Ended, Outcome, Started, Tell
from headwise_lab.sweeps.slurm_site import Site
from headwise_lab.sweeps.spool import DRIVER, STOP, Pace, Spool
from headwise_lab.sweeps.trials import Trial

if TYPE_CHECKING:
    from submitit import Job

PATIENCE = 20.0
"""Seconds for jobs of this machine to see that they are to end."""


@attrs.define
class _Given:
    """A trial that has not ended, and what has been told of it: the questions answered, None before it was started."""

    trial: Trial
    told: int | None = None


@attrs.define
class _Job:
    """A job that was submitted: its last sign of life, and since when it is that."""

    handle: Job[None]
    sign: str | None = None
    since: float = attrs.field(factory=time.monotonic)


class Driver:
    """One run of the executor."""

    def __init__(self, spool: Spool, site: Site, trials: Sequence[Trial], tell: Tell, pace: Pace) -> None:
        self._spool, self._site, self._tell, self._pace = spool, site, tell, pace
        self._groups = {group: number for number, group in enumerate(spool.content()[1])}
        self._numbers, self._names = count(1), count(1)
        self._given: dict[str, _Given] = {}
        self._jobs: dict[str, _Job] = {}
        self._beaten = 0.0
        for trial in trials:
            self._add(trial)
        self._unclaimed = set(self._given)

    def run(self, jobs: int) -> None:
        """Have so many jobs at work while trials wait, until every trial has ended."""
        while self._given:
            self._beat()
            self._staff(jobs)
            time.sleep(self._pace.look)
            self._look()
            self._bury()

    def close(self) -> None:
        """End every job."""
        with suppress(OSError):
            self._spool.beat(DRIVER, STOP)
        self._site.end([job.handle for job in self._jobs.values()], PATIENCE)

    def _add(self, trial: Trial) -> None:
        name = f"{self._groups[trial.group]:05d}-{next(self._numbers):06d}"
        self._given[name] = _Given(trial)
        self._spool.add(name, trial)

    def _beat(self) -> None:
        if time.monotonic() - self._beaten > self._pace.beat:
            self._beaten = time.monotonic()
            self._spool.beat(DRIVER)

    def _staff(self, jobs: int) -> None:
        """Submit jobs where trials have been waiting for a while, and not just come back to the job that had them."""
        waiting = set(self._spool.waiting())
        wanted = min(jobs - len(self._jobs), len(waiting & self._unclaimed))
        self._unclaimed = waiting
        if wanted > 0:
            names = [f"job{next(self._names)}" for _ in range(wanted)]
            for name, handle in zip(names, self._site.submit(names), strict=True):
                self._jobs[name] = _Job(handle)

    def _look(self) -> None:
        """Tell what the jobs have written since the last time."""
        for _, name in self._spool.claims():
            self._start(name)
        for name, answered in self._spool.progress():
            given = self._given.get(name)
            if given is not None and given.told is not None and answered > given.told:
                self._tell(Advanced(given.trial.id, answered - given.told))
                given.told = answered
        for job, name, outcome in self._spool.outcomes():
            self._end(job, name, outcome)

    def _start(self, name: str) -> None:
        given = self._given.get(name)
        if given is not None and given.told is None:
            given.told = 0
            self._tell(Started(given.trial.id))

    def _end(self, job: str, name: str, outcome: Outcome) -> None:
        """A trial is over, unless it was given up before; what is to be run once more waits before this is settled."""
        self._start(name)
        given = self._given.pop(name, None)
        if given is not None and self._tell(Ended(given.trial.id, outcome)):
            self._add(given.trial)
        self._spool.settle(job, name)

    def _bury(self) -> None:
        """Trials of jobs that have ended have failed; a job that ended before its first one costs the next."""
        over = set(self._site.over({name: job.handle for name, job in self._jobs.items()}))
        silent = self._silent() - over
        if not over | silent:
            return
        self._site.end([self._jobs[name].handle for name in silent], 0.0)
        if not self._site.here and not all(map(self._spool.has_left, over)):
            time.sleep(self._pace.look * 5)  # what they wrote last may be late to show on a shared disk
        self._look()
        for name in over | silent:
            self._lose(name, self._jobs.pop(name))

    def _silent(self) -> set[str]:
        """Jobs that have given signs of life, and no new one for long."""
        for name, job in self._jobs.items():
            sign = self._spool.sign(name)
            if sign != job.sign:
                job.sign, job.since = sign, time.monotonic()
        now = time.monotonic()
        return {n for n, job in self._jobs.items() if job.sign is not None and now - job.since > self._pace.silence}

    def _lose(self, job: str, lost: _Job) -> None:
        had = [name for other, name in self._spool.claims() if other == job]
        if not had and not self._spool.has_left(job):
            had = self._next(job)
        words = self._site.last_words(lost.handle)
        for name in had:
            self._end(job, name, Outcome(error=words))

    def _next(self, job: str) -> list[str]:
        """Claim a trial that waits in the name of a job that could not."""
        for name in self._spool.waiting():
            with suppress(FileNotFoundError):
                self._spool.take(job, name)
                return [name]
        return []
