"""``headwise ablate``: study A or B of seed 002 over budgets, head counts and benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise_lab.commands.options import (
    Aggregate,
    Attention,
    Batch,
    Data,
    Device,
    Dtype,
    Limit,
    MinMass,
    Model,
    Positions,
    Seed,
    SinkShare,
)

if TYPE_CHECKING:
    from rich.console import Console

    from headwise.budget import Budget
    from headwise.geometry import Geometry


def ablate(
    *,
    study: Annotated[str, typer.Option(help="a: head-scoring strategies; b: query strategies at a fixed scorer.")],
    out: Annotated[Path, typer.Option(help="Output folder; trials that are in it already are not run again.")],
    model: Model = "demo-llava",
    benchmarks: Annotated[list[str] | None, typer.Option(help="Benchmarks; repeat. [default: all installed]")] = None,
    tokens: Annotated[
        list[float] | None,
        typer.Option(help="Processed averages; repeat. [default: a third, 2 ninths, a ninth of the visual tokens]"),
    ] = None,
    keep: Annotated[list[int] | None, typer.Option(help="Visual tokens kept, instead of --tokens; repeat.")] = None,
    heads: Annotated[
        list[int] | None,
        typer.Option(help="Head counts; repeat. [default: 3/4, 1/2 and 1/4 of the heads; in study b 1/2]"),
    ] = None,
    strategies: Annotated[
        list[str] | None, typer.Option(help="The strategies compared; repeat. [default: all installed]")
    ] = None,
    scorer: Annotated[str, typer.Option(help="Study b: the head scorer that stays fixed.")] = "variance",
    limit: Limit = None,
    seed: Seed = 0,
    batch: Batch = 16,
    data: Data = None,
    positions: Positions = "keep",
    aggregate: Aggregate = "mean",
    min_mass: MinMass = 0.0,
    sink_share: SinkShare = 1.0,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    attention: Attention = "sdpa",
) -> None:
    """Compare strategies in a full grid.

    Ctrl-C leaves the finished trials; the same command goes on where it stopped. Ends with the report.
    """
    from rich.console import Console

    from headwise.errors import DataError
    from headwise_lab.benchmarks import names
    from headwise_lab.commands.ending import finish
    from headwise_lab.models_io import load_model
    from headwise_lab.store import Store
    from headwise_lab.studies import half, head_counts, study_a, study_b
    from headwise_lab.sweep import Sweep, sweep

    if study not in ("a", "b"):
        raise DataError(f"there is no study {study!r}; give a (head scoring) or b (query selection)")
    console = Console(stderr=True)
    loaded = load_model(model, dtype=dtype, device=device, attention=attention)
    geometry, asked = loaded.geometry, list(benchmarks or names())
    budgets = _budgets(geometry, tokens, keep, console)
    if study == "a":
        cases = study_a(
            benchmarks=asked, budgets=budgets, heads=heads or head_counts(geometry.heads), scorers=strategies
        )
    else:
        cases = [
            case
            for count in heads or [half(geometry.heads)]
            for case in study_b(benchmarks=asked, budgets=budgets, heads=count, scorer=scorer, queries=strategies)
        ]
    store = Store.open(out, f"study {study}")
    for warning in store.warnings:
        console.print(f"warning: {warning}", markup=False)
    settings = {"positions": positions, "aggregate": aggregate, "min_mass": min_mass, "sink_share": sink_share}
    tally = sweep(
        Sweep(
            loaded=loaded,
            cases=list(dict.fromkeys(cases)),
            store=store,
            study=study,
            seed=seed,
            limit=limit,
            batch=batch,
            data=data,
            settings=settings,
        ),
        console,
    )
    finish(store, tally, f"Study {study.upper()}: {loaded.name}", console)


def _budgets(geometry: Geometry, tokens: list[float] | None, keep: list[int] | None, console: Console) -> list[Budget]:
    """The budgets asked for, or those of seed 002 as far as the model can meet them."""
    from headwise.budget import Budget
    from headwise.errors import BudgetError
    from headwise_lab.studies import averages

    if tokens and keep:
        raise BudgetError("both --tokens and --keep are given; a study has one kind of budget")
    if keep:
        return [Budget(keep=count) for count in keep]
    told: tuple[str, ...] = ()
    wanted: tuple[float, ...] = tuple(tokens or ())
    if not wanted:
        wanted, told = averages(geometry)
    for sentence in told:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    return [Budget(tokens=average) for average in wanted]
