"""``headwise sweep``: all trials of a sweep file, by several workers, going on where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from headwise_lab.sweeps.executor import Executor
    from headwise_lab.sweeps.planning import Plan
    from headwise_lab.sweeps.schema import SweepFile


def sweep(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE|NAME", help="A TOML file, or one that ships: ablation_a, ablation_b, methods."),
    ],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; trials that are in it already are not run again.")
    ] = None,
    executor: Annotated[str, typer.Option(help="What runs the trials: local, or one that is installed.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Worker processes; 0: none but this one. [default: one per GPU, 1 without GPUs]"),
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Times that a failed trial is tried again.")] = 1,
    model: Annotated[list[str] | None, typer.Option(help="Models instead of the file's; repeat.")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="Benchmarks instead of the file's; repeat.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmarks' files, as in `headwise run`.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions asked of each benchmark.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda (all GPUs), cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    dry_run: Annotated[bool, typer.Option("--plan", help="Print the trials and run nothing.")] = False,
) -> None:
    """Run all trials of a sweep file; what is done already, or stands there twice, is not run again.

    Every trial is planned before the first one runs. Interrupt it in any way and run the same line again: only what is
    missing runs. What fails is recorded and tried again. `headwise status DIR` tells how far it is. Ends with the
    report.
    """
    from rich.console import Console

    from headwise.errors import DataError
    from headwise_lab.sweeps.executor import executor as executor_called
    from headwise_lab.sweeps.planning import planned

    if out is None and not dry_run:
        raise DataError("a sweep needs --out DIR, or --plan to look at its trials only")
    runs = executor_called(executor, workers)
    given = {
        "models": model,
        "benchmarks": benchmark,
        "data": None if data is None else str(data),
        "limit": limit,
        "device": device,
        "dtype": dtype,
    }
    plan = planned(_read(file, {key: value for key, value in given.items() if value}))
    console = Console(stderr=True)
    for remark in plan.told:
        console.print(remark, markup=False, highlight=False, soft_wrap=True)
    if dry_run or out is None:
        _show(plan)
        return
    _run(plan, out, runs, retries, console)


def _read(file: str, given: dict[str, Any]) -> SweepFile:
    """The file with what the command line says instead, judged as the file's own values are."""
    import attrs

    from headwise.errors import DataError
    from headwise_lab.sweeps.reading import read
    from headwise_lab.sweeps.schema import WrongValue

    told: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    found = read(file)
    try:
        return attrs.evolve(found, **told)
    except WrongValue as error:
        raise DataError(f"--{error.path.partition('[')[0].removesuffix('s')}: {error.problem}") from error


def _show(plan: Plan) -> None:
    for trial in plan.trials:
        typer.echo(f"{trial.id}  {trial.label}{f': not run: {trial.refused}' if trial.refused else ''}")
    refused = sum(trial.refused is not None for trial in plan.trials)
    typer.echo(f"{len(plan.trials)} trials, {refused} of which cannot be run")


def _run(plan: Plan, out: Path, runs: Executor, retries: int, console: Console) -> None:

    from headwise_lab.commands.ending import finish
    from headwise_lab.store import Store
    from headwise_lab.sweeps.display import Display
    from headwise_lab.sweeps.folder import locked
    from headwise_lab.sweeps.running import Order, run
    from headwise_lab.sweeps.trials import Work

    with locked(out):
        store = Store.open(out, "sweep")
        for warning in store.warnings:
            console.print(f"warning: {warning}", markup=False)
        counts = run(
            Order(
                title=plan.title,
                trials=plan.trials,
                work=Work(terms=plan.terms),
                head=plan.head,
                store=store,
                executor=runs,
                retries=retries,
            ),
            Display(console, plan.trials),
        )
        finish(store, counts, plan.title, console)
