"""What a job of the executor ``slurm`` does: claims trials until none is left, with a model that stays."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import attrs

from headwise_lab.sweeps.executor import LateRunner, Outcome, attempt
from headwise_lab.sweeps.spool import DRIVER, STOP, Spool
from headwise_lab.sweeps.trials import Trial

OFTEN = 0.5
"""Seconds between two notes of progress."""


def serve(folder: str, job: str) -> None:
    """Run trials from the spool in ``folder`` as the job of this name."""
    spool, leaving = Spool(Path(folder)), threading.Event()
    work, groups, pace = spool.content()
    # Submitit's signal for "little time is left" (90 s): no new trial then; its own handler would raise in this one.
    signal.signal(signal.SIGUSR2, lambda *_: leaving.set())
    threading.Thread(target=_live, args=(spool, job, pace.beat, pace.silence), daemon=True).start()
    _own_up(spool, job)
    runner, mine = LateRunner(work), None
    while not leaving.is_set():
        settled = spool.settled(job)  # asked first: what is to be run once more is there before this is so
        claimed = spool.claim(job, mine, groups)
        if claimed is not None:
            name, trial = claimed
            mine = trial.group
            spool.finish(job, name, attempt(runner, trial, _Progress(spool, job, name, trial)))
        elif settled:
            break
        else:
            time.sleep(pace.look)
    spool.leave(job)


def _own_up(spool: Spool, job: str) -> None:
    """A job that Slurm has started once more, as after preemption, does not know what it was doing."""
    done = {name for other, name, _ in spool.outcomes() if other == job}
    for other, name in spool.claims():
        if other == job and name not in done:
            spool.finish(job, name, Outcome(error="WorkerDied: Slurm ended the job in the middle of the trial"))


@attrs.define
class _Progress:
    """Counts answers, and notes them now and then."""

    spool: Spool
    job: str
    name: str
    trial: Trial
    answered: int = 0
    noted: float = 0.0

    def __call__(self, questions: int) -> None:
        self.answered += questions
        if time.monotonic() - self.noted > OFTEN:
            self.noted = time.monotonic()
            self.spool.advance(self.job, self.name, self.answered)


def _live(spool: Spool, job: str, beat: float, silence: float) -> None:
    """Give signs of life, and end this process when the sweep says so, has none left to give, or the spool is gone.

    Signs are compared, not read as times: the clocks of two machines need not agree.
    """
    last, since, told = None, time.monotonic(), 0.0
    while time.monotonic() - since < silence:
        try:
            sign = spool.sign(DRIVER)
            if sign == STOP:
                break
            if sign != last:
                last, since = sign, time.monotonic()
            if time.monotonic() - told > beat:
                told = time.monotonic()
                spool.beat(job)
        except FileNotFoundError:
            break
        except OSError:  # a disk that does not answer is not the end yet
            pass
        time.sleep(min(1.0, beat))
    os._exit(0)
