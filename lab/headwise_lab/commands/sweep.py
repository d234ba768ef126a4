"""``headwise sweep``: runs all trials of a sweep file with several workers, and continues where it stopped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.hints import number_of
from headwise.printing import say
from headwise_lab.commands.options import DEVICE, DTYPE, Data

if TYPE_CHECKING:
    from headwise_lab.sweeps.plan import Part, Plan


File = Annotated[
    str,
    typer.Argument(metavar="FILE|NAME", help="A TOML file, or one that ships: ablation_a, ablation_b, kv, methods."),
]
Out = Annotated[str | None, typer.Option(help="Output folder or URL; trials that are in it already are not run again.")]
Executor = Annotated[
    str,
    typer.Option(
        metavar="NAME[:option=value,...]",
        help="How the trials are run: local (processes of this machine), ray (address=, cpus=), slurm (partition=,"
        " time=MINUTES, gpus=, cpus=, mem=GB, gres=, account=, qos=, constraint=, job_dir=FOLDER), or another that is"
        " installed.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=0, help="Workers; 0: none but this process. [default: one per GPU, 1 without GPUs]"),
]
PartOf = Annotated[
    str | None,
    typer.Option(
        metavar="I/N", help="Run every N-th trial, from the I-th on; N machines with one --out run all of them."
    ),
]
Retries = Annotated[int, typer.Option(min=0, help="Times that a failed trial is tried again.")]
Models = Annotated[list[str] | None, typer.Option(help="Models instead of the file's; repeat.")]
Benchmarks = Annotated[list[str] | None, typer.Option(help="Benchmarks instead of the file's; repeat.")]
LimitOf = Annotated[int | None, typer.Option(min=1, help="Questions asked of each benchmark.")]
DeviceOf = Annotated[str | None, typer.Option(help=f"{DEVICE} cuda: all GPUs.")]
DtypeOf = Annotated[str | None, typer.Option(help=DTYPE)]
DryRun = Annotated[bool, typer.Option("--plan", help="Print the trials and run nothing.")]


def sweep(
    file: File,
    *,
    out: Out = None,
    executor: Executor = "local",
    workers: Workers = None,
    part: PartOf = None,
    retries: Retries = 1,
    model: Models = None,
    benchmark: Benchmarks = None,
    data: Data = None,
    limit: LimitOf = None,
    device: DeviceOf = None,
    dtype: DtypeOf = None,
    dry_run: DryRun = False,
) -> None:
    """Run all trials of a sweep file. A trial that is done already, or occurs twice, is not run again.

    All trials are planned before the first one runs. After any interruption, run the same line again: only missing
    trials run. A trial that fails is recorded and tried again. `headwise status DIR` shows the progress. At the end,
    the report is written.
    """
    from headwise.errors import DataError
    from headwise_lab.commands.sweeping import carry_out, overridden, plans_of, tell
    from headwise_lab.models.placing import AUTO, device_of
    from headwise_lab.sweeps.executor import executor as executor_called
    from headwise_lab.sweeps.local import Local
    from headwise_lab.sweeps.reading import read
    from headwise_lab.terminal import beside

    if out is None and not dry_run:
        raise DataError("a sweep needs --out DIR, or --plan to look at its trials only")
    mine, runs = _part(part), executor_called(executor, workers)
    given = {
        "models": model,
        "benchmarks": benchmark,
        "data": data,
        "limit": limit,
        "device": device,
        "dtype": dtype,
    }
    found = overridden(read(file), {key: value for key, value in given.items() if value})
    console = beside()
    if found.device == AUTO and not isinstance(runs, Local):
        tell(console, f"device: {device_of(AUTO)}, as this machine plans it; --device names that of workers elsewhere")
    if dry_run or out is None:
        plans = plans_of(found, None)
        tell(console, *(remark for plan in plans for remark in plan.remarks))
        _show(plans, mine)
        return
    carry_out(
        lambda folder: plans_of(found, folder),
        out,
        "sweep",
        console,
        title=found.title,
        runs=runs,
        retries=retries,
        part=mine,
    )


def _part(given: str | None) -> Part | None:
    """i and n of ``i/n``; raises DataError for anything else."""
    from headwise.errors import DataError

    if given is None:
        return None
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", given)
    part = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise DataError(f"--part {given} is no part; give I/N with I from 1 to N, such as 2/3 for the second of three")
    return part


def _show(plans: Sequence[Plan], part: Part | None) -> None:
    from headwise_lab.sweeps.plan import numbered

    trials = numbered(plans, part)
    for trial in trials:
        say(f"{trial.id}  {trial.label}{f': not run: {trial.refused}' if trial.refused else ''}")
    refused = sum(trial.refused is not None for trial in trials)
    say(f"{number_of(len(trials), 'trial')}, {refused} of which cannot be run")
