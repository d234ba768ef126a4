"""``headwise ablate``: study A or B of seed 002 over budgets, heads and benchmarks, or the KV study of seed 004."""

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
    Positions,
    Profile,
    Seed,
    SinkShare,
)

if TYPE_CHECKING:
    from rich.console import Console

    from headwise.budget import Budget
    from headwise.geometry import Geometry
    from headwise_lab.kv.ablation import KvOptions

STUDIES = ("a", "b", "kv")
VISUAL_ONLY = ("benchmarks", "keep", "heads", "strategies", "scorer", "limit", "seed", "batch", "data", "positions",
               "aggregate", "min_mass", "sink_share")  # fmt: skip
KV_ONLY = ("text", "profile", "scale", "permutations")
KV_TOKENS = 1000


def ablate(
    context: typer.Context,
    *,
    study: Annotated[
        str, typer.Option(help="a: head-scoring strategies; b: query strategies at a fixed scorer; kv: KV eviction.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder; trials that are in it already are not run again.")],
    model: Annotated[
        str | None,
        typer.Option(help="A model that ships, a folder or a hub id. [default: demo-llava; in study kv demo-pythia]"),
    ] = None,
    benchmarks: Annotated[list[str] | None, typer.Option(help="Benchmarks; repeat. [default: all installed]")] = None,
    tokens: Annotated[
        list[float] | None,
        typer.Option(
            help="Processed averages; repeat. [default: a third, 2 ninths, a ninth of the visual tokens] Study kv:"
            f" tokens of the text that are scored. [default: {KV_TOKENS}]"
        ),
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
    text: Annotated[str, typer.Option(help="Study kv: a UTF-8 text file, or kjv or shakespeare.")] = "kjv",
    profile: Profile = None,
    scale: Annotated[
        float | None,
        typer.Option(
            min=0.125, max=8, help="Study kv: windows times this. [default: 1, less for models trained on short texts]"
        ),
    ] = None,
    permutations: Annotated[
        int, typer.Option(min=0, help="Study kv: times that the windows of a head-aware run are dealt at random.")
    ] = 3,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    attention: Attention = "sdpa",
) -> None:
    """Compare strategies in a full grid.

    Ctrl-C leaves the finished trials; the same command goes on where it stopped. Ends with the report. Study kv reads
    one text under every strategy: windows with and without sinks, windows by head class, the same windows dealt to
    heads at random, and the full cache. Heads are classified on the text after the tokens that are scored.
    """
    from rich.console import Console

    from headwise.errors import DataError

    if study not in STUDIES:
        raise DataError(f"there is no study {study!r}; give a (head scoring), b (query selection) or kv (KV eviction)")
    _refuse_foreign(context, study)
    console = Console(stderr=True)
    load = {"dtype": dtype, "device": device, "attention": attention}
    if study == "kv":
        from headwise_lab.kv.ablation import KvOptions

        count = _token_count(tokens)
        given = KvOptions(text=text, tokens=count, profile=profile, scale=scale, permutations=permutations)
        _ablate_kv(given, model or "demo-pythia", load, out, console)
        return

    from headwise_lab.benchmarks import names
    from headwise_lab.commands.ending import finish
    from headwise_lab.models_io import load_model
    from headwise_lab.store import Store
    from headwise_lab.studies import half, head_counts, study_a, study_b
    from headwise_lab.sweep import Sweep, sweep

    loaded = load_model(model or "demo-llava", **load)
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


def _refuse_foreign(context: typer.Context, study: str) -> None:
    """Raise DataError for an option that is given and has no meaning in the study."""
    from headwise.errors import DataError

    foreign = VISUAL_ONLY if study == "kv" else KV_ONLY
    for name in foreign:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option, right = f"--{name.replace('_', '-')}", "a and b" if study == "kv" else "kv"
            raise DataError(f"{option} belongs to study {right} and means nothing in study {study}; leave it out")


def _ablate_kv(given: KvOptions, model: str, load: dict[str, str], out: Path, console: Console) -> None:
    """Study kv: one text, one model, every strategy."""
    from headwise_lab.commands.ending import finish
    from headwise_lab.kv.ablation import ablate_kv
    from headwise_lab.models_io import load_language_model
    from headwise_lab.store import Store

    loaded = load_language_model(model, **load)
    store = Store.open(out, "study kv")
    for warning in store.warnings:
        console.print(f"warning: {warning}", markup=False)
    tally = ablate_kv(loaded, given, store, console)
    finish(store, tally, f"Study KV: {loaded.name}", console)


def _token_count(tokens: list[float] | None) -> int:
    """The tokens a text is scored on; raises DataError unless they are one whole number."""
    from headwise.errors import DataError

    if not tokens:
        return KV_TOKENS
    if len(tokens) > 1 or tokens[0] != int(tokens[0]) or tokens[0] < 2:
        told = ", ".join(f"{count:g}" for count in tokens)
        raise DataError(f"--tokens {told}: study kv scores one text of a whole number of tokens; give one, 2 or more")
    return int(tokens[0])


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
