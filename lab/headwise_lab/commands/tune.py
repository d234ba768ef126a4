"""``headwise tune``: a search for strategies, counts and budgets, confirmed on held-out questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise_lab.commands.options import DEVICE, DTYPE, Data

if TYPE_CHECKING:
    from headwise_lab.tuning.outcome import SearchOutcome
    from headwise_lab.tuning.schema import SpaceFile


def tune(
    space: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="A TOML file, or one that ships: fastv_heads, methods.")
    ],
    *,
    out: Annotated[str, typer.Option(help="Output folder; a search that is in it already goes on.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier runs counted.")] = 60,
    confirm: Annotated[
        int, typer.Option(min=0, help="Points of the front, at most, that are measured on held-out questions.")
    ] = 8,
    sampler: Annotated[str, typer.Option(help="tpe, nsga2 or random: how optuna chooses the next point.")] = "tpe",
    cost: Annotated[
        str, typer.Option(help="processed: tokens per layer, on average; flops: counted multiply-adds of a prefill.")
    ] = "processed",
    model: Annotated[str | None, typer.Option(help="Model instead of the file's.")] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="Benchmarks instead of the file's; repeat.")] = None,
    data: Data = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each benchmark to search on.")] = None,
    held_out: Annotated[
        int | None, typer.Option(min=1, help="Questions of each benchmark to confirm on. [default: as --limit]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search and of synthetic questions.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Questions asked at once.")] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE)] = None,
    dtype: Annotated[str | None, typer.Option(help=DTYPE)] = None,
) -> None:
    """Search strategies and budgets for high accuracy at low cost, then confirm the best points.

    The front of the search is measured again on held-out questions, beside FastV and random tokens at the same
    processed averages. After any interruption, run the same line again: the search continues until --trials have ended.
    """
    from headwise_lab.commands.sweeping import overridden
    from headwise_lab.models.placing import settled
    from headwise_lab.terminal import beside
    from headwise_lab.tuning.display import SearchDisplay
    from headwise_lab.tuning.reading import read
    from headwise_lab.tuning.running import SearchOptions
    from headwise_lab.tuning.running import tune as run

    given = {"model": model, "benchmarks": benchmark, "data": data, "limit": limit, "held_out": held_out}
    given |= {"seed": seed, "batch": batch, "device": device, "dtype": dtype}
    _check(sampler, cost)
    file = overridden(read(space), {key: value for key, value in given.items() if value is not None})
    dtype, device = settled(file.dtype, file.device)
    file = overridden(file, {"dtype": dtype, "device": device})
    console, folder = beside(), _folder(out)
    wanted = SearchOptions(
        out=folder,
        trials=trials,
        sampler=sampler,
        cost=cost,
        confirm=confirm,
        command=_command(space, file, {"trials": trials, "confirm": confirm, "sampler": sampler, "cost": cost}),
    )
    try:
        outcome = run(file, wanted, SearchDisplay(console))
    except KeyboardInterrupt:
        console.print(f"Stopped; finished trials are in {out}, run the same line again to go on.")
        raise
    _show(outcome, folder)


def _folder(out: str) -> Path:
    """The output folder; raises DataError for a URL, where the search's database could not be locked."""
    from headwise.errors import DataError
    from headwise_lab.store.locations import is_local, place

    folder = place(out)
    if not is_local(folder):
        raise DataError(f"--out {out} is not on this machine, where the database of a search has to be; give a folder")
    return folder


def _check(sampler: str, cost: str) -> None:
    from headwise.errors import DataError
    from headwise_lab.tuning.measuring import COSTS
    from headwise_lab.tuning.searching import SAMPLERS

    for name, value, known in (("sampler", sampler, SAMPLERS), ("cost", cost, COSTS)):
        if value not in known:
            raise DataError(f"--{name} {value!r} is not one of {', '.join(known)}")


def _command(space: str, file: SpaceFile, chosen: dict[str, object]) -> str:
    """The command line of the search without --out; it repeats the file's values, which may change later."""
    import shlex

    values = {"model": file.model, "limit": file.limit, "held-out": file.held_out, "seed": file.seed, "data": file.data}
    values |= {"dtype": file.dtype, "device": file.device}
    options = [*(("benchmark", name) for name in file.benchmarks), *values.items(), *chosen.items()]
    words = [word for key, value in options if value is not None for word in (f"--{key}", str(value))]
    return shlex.join(["headwise", "tune", space, *words])


def _show(outcome: SearchOutcome, out: Path) -> None:
    from headwise.errors import HeadwiseError
    from headwise_lab.terminal.console import wide_enough
    from headwise_lab.tuning.page import terminal

    if not outcome.found:
        reason = next((reason for _, _, reason in outcome.failures), "there was no trial")
        raise HeadwiseError(f"no point of the space could be measured; the first reason: {reason}")
    table = terminal(outcome)
    output = wide_enough([table])
    output.print(table)
    output.print()
    for sentence in outcome.sentences():
        output.print(sentence)
    output.print(f"\nReport: {out / 'tune.html'} (also tune.md, results.jsonl, tables/ and figures/)")
