"""The executor ``slurm``: jobs of a Slurm cluster, each of which keeps its model (``headwise[slurm]``, submitit).

Start it on a machine that has sbatch. This process runs until the end: it writes the store, and submits new jobs for
those that ended early. Models, data, this installation and the job folder must be at the same paths on every machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.sweeps.executor import Tell, at_least_one, needs
from headwise_lab.sweeps.job_dir import Pace, opened
from headwise_lab.sweeps.slurm_driver import Driver
from headwise_lab.sweeps.slurm_site import Site
from headwise_lab.sweeps.trials import Trial, Work

FOLDER = ".headwise-slurm"
PACES = {"slurm": Pace(), "local": Pace(look=0.1, beat=1.0, silence=30.0)}
"""The shared disk of a cluster is read less often than a disk of this machine."""

_ONE_OR_MORE = attrs.validators.optional(attrs.validators.ge(1))


def _known_cluster(_slurm: object, _: attrs.Attribute[str], cluster: str) -> None:
    if cluster not in PACES:
        raise DataError(f"cluster={cluster} is not one of {', '.join(PACES)}")


@attrs.frozen(kw_only=True)
class Slurm:
    """A job array. A job that dies uses up one attempt of its trial; another is submitted while trials wait.

    ``workers``: jobs at the same time; None means one. ``job_dir``: a folder on a disk that all machines share, by
    default ``.headwise-slurm`` in the current folder. ``cluster=local`` runs the jobs on this machine, without Slurm.
    The other options are passed to sbatch for each job: ``time`` in minutes, ``mem`` in GB, ``gpus`` (by default 1 on
    device cuda).
    """

    workers: int | None = attrs.field(default=None, validator=at_least_one)
    job_dir: Path = attrs.field(default=Path(FOLDER), converter=Path)
    cluster: str = attrs.field(default="slurm", validator=_known_cluster)
    time: int = attrs.field(default=240, converter=int, validator=attrs.validators.ge(1))
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    gpus: int | None = attrs.field(default=None, converter=attrs.converters.optional(int), validator=_ONE_OR_MORE)
    cpus: int | None = attrs.field(default=None, converter=attrs.converters.optional(int), validator=_ONE_OR_MORE)
    mem: float | None = attrs.field(default=None, converter=attrs.converters.optional(float))

    def __attrs_post_init__(self) -> None:
        needs("submitit", "slurm")
        if self.cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise DataError("there is no sbatch here; start the sweep on a machine that submits to Slurm")

    def run(self, work: Work, trials: Sequence[Trial], tell: Tell) -> None:
        """Run trials; a job prefers trials with the model and benchmark that it has loaded."""
        groups = list(dict.fromkeys(trial.group for trial in trials))
        try:
            with opened(self.job_dir, work, groups, pace := PACES[self.cluster]) as job_dir:
                site = Site(self.cluster, job_dir.folder, self.parameters(work.terms.device))
                driver = Driver(job_dir, site, trials, tell, pace)
                try:
                    driver.run(self.workers or 1)
                finally:
                    driver.close()
        except OSError as error:
            raise DataError(
                f"the job folder {self.job_dir} cannot be used ({error.strerror or error}); give slurm:job_dir=FOLDER"
                " on a disk that all machines share"
            ) from error

    def parameters(self, device: str) -> Mapping[str, object]:
        """The options under submitit's names."""
        gpus = self.gpus or (1 if device.startswith("cuda") and self.gres is None else None)
        options = {
            "name": "headwise",
            "timeout_min": self.time,
            "gpus_per_node": gpus,
            "cpus_per_task": self.cpus,
            "mem_gb": self.mem,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
            "slurm_gres": self.gres,
        }
        return {name: value for name, value in options.items() if value is not None}
