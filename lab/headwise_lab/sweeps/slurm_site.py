"""Submitting jobs through submitit, and asking how they ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.errors import DataError
from headwise_lab.sweeps.local import deaf_to_ctrl_c
from headwise_lab.sweeps.slurm_job import serve

if TYPE_CHECKING:
    from submitit import Job

CHECK = 15.0
"""Seconds between two requests to Slurm; one request covers all jobs."""


class Site:
    """Where jobs run: on a Slurm cluster, or as processes of this machine."""

    def __init__(self, cluster: str, folder: Path, parameters: Mapping[str, object]) -> None:
        import submitit

        self.here, self._folder, self._asked = cluster == "local", folder, 0.0
        self._executor = submitit.AutoExecutor(folder / "logs", cluster=cluster)
        self._executor.update_parameters(**parameters)

    def submit(self, names: Sequence[str]) -> list[Job[None]]:
        """A job for each name, as an array where there are several; raises DataError where Slurm rejects them."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with deaf_to_ctrl_c():  # jobs on this machine end by a sign from the driver, not by Ctrl-C
                return list(self._executor.map_array(serve, [str(self._folder)] * len(names), names))
        except (FailedJobError, FailedSubmissionError) as error:
            raise DataError(f"Slurm does not accept the jobs: {' '.join(str(error).split())}") from error

    def over(self, jobs: Mapping[str, Job[None]]) -> list[str]:
        """The names of the jobs that are known to have ended; asks Slurm at most every CHECK seconds."""
        force = time.monotonic() - self._asked > CHECK
        if force and jobs:
            self._asked = time.monotonic()
            next(iter(jobs.values())).done(force_check=True)
        return [name for name, job in jobs.items() if job.done()]

    def last_words(self, job: Job[None]) -> str:
        """How a job ended, and the last line of its log, where there is one."""
        lines: list[str] = []
        with suppress(OSError):
            lines = [line for line in (job.stderr() or "").splitlines() if line.strip()]
        said = f"; its log ends with: {' '.join(lines[-1].split())}" if lines else ""
        return f"WorkerDied: job {job.job_id} ended as {job.state}{said}"

    def end(self, jobs: Sequence[Job[None]], patience: float) -> None:
        """End jobs that have been asked to stop: wait for those of this machine, and cancel those of Slurm."""
        if self.here:
            until = time.monotonic() + patience
            while time.monotonic() < until and not all(job.done() for job in jobs):
                time.sleep(0.05)
            return
        for job in jobs:
            job.cancel(check=False)
