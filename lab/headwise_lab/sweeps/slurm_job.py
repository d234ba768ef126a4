"""A job of the executor ``slurm``: it claims trials until none is left, and keeps its model between them."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import attrs

from headwise_lab.sweeps.executor import AttemptResult, LateRunner, attempt
from headwise_lab.sweeps.job_dir import DRIVER, STOP, JobDir
from headwise_lab.sweeps.trials import Trial

OFTEN = 0.5
"""Seconds between two reports of progress."""


def serve(folder: str, job: str) -> None:
    """Run the trials in the job folder ``folder`` as the job named ``job``."""
    job_dir, leaving = JobDir(Path(folder)), threading.Event()
    work, groups, pace = job_dir.content()
    # Submitit sends this signal when 90 s are left: this trial is finished and no other begun. Submitit's own handler
    # would raise an exception inside the trial.
    signal.signal(signal.SIGUSR2, lambda *_: leaving.set())
    threading.Thread(target=_live, args=(job_dir, job, pace.beat, pace.silence), daemon=True).start()
    _own_up(job_dir, job)
    runner, mine = LateRunner(work), None
    while not leaving.is_set():
        settled = job_dir.settled(job)  # read before claiming: a trial to be repeated is added before it is settled
        claimed = job_dir.claim(job, mine, groups)
        if claimed is not None:
            name, trial = claimed
            mine = trial.group
            job_dir.finish(job, name, attempt(runner, trial, _Progress(job_dir, job, name, trial)))
        elif settled:
            break
        else:
            time.sleep(pace.look)
    job_dir.leave(job)


def _own_up(job_dir: JobDir, job: str) -> None:
    """Report the trial that was running as failed where Slurm has restarted this job, as after a preemption."""
    done = {name for other, name, _ in job_dir.outcomes() if other == job}
    for other, name in job_dir.claims():
        if other == job and name not in done:
            job_dir.finish(job, name, AttemptResult(error="WorkerDied: Slurm ended the job in the middle of the trial"))


@attrs.define
class _Progress:
    """Counts answered questions, and writes the count at most every OFTEN seconds."""

    job_dir: JobDir
    job: str
    name: str
    trial: Trial
    answered: int = 0
    written: float = 0.0

    def __call__(self, questions: int) -> None:
        self.answered += questions
        if time.monotonic() - self.written > OFTEN:
            self.written = time.monotonic()
            self.job_dir.advance(self.job, self.name, self.answered)


def _live(job_dir: JobDir, job: str, beat: float, silence: float) -> None:
    """Write signs of life, and end this process when the sweep asks for it, is silent, or the job folder is gone.

    The sweep is silent where its sign of life has not changed for ``silence`` seconds by this machine's clock. The sign
    itself is not read as a time: the clocks of two machines need not agree.
    """
    last, since, written = None, time.monotonic(), 0.0
    while time.monotonic() - since < silence:
        try:
            sign = job_dir.sign(DRIVER)
            if sign == STOP:
                break
            if sign != last:
                last, since = sign, time.monotonic()
            if time.monotonic() - written > beat:
                written = time.monotonic()
                job_dir.beat(job)
        except FileNotFoundError:
            break
        except OSError:  # the disk may answer again
            pass
        time.sleep(min(1.0, beat))
    os._exit(0)
