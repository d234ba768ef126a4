"""``headwise ablate``: study A or B of seed 002, published methods side by side, or the KV study of seed 004."""

from __future__ import annotations

from collections.abc import Callable
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
    from headwise_lab.studies import Case

VISUAL = ("a", "b", "methods")
STUDIES = (*VISUAL, "kv")
BELONG_TO = {
    **dict.fromkeys(("benchmarks", "keep", "limit", "seed", "batch", "data"), VISUAL),
    **dict.fromkeys(("positions", "aggregate", "min_mass", "sink_share"), VISUAL),
    **dict.fromkeys(("heads", "strategies"), ("a", "b")),
    "scorer": ("b",),
    "recipe": ("methods",),
    **dict.fromkeys(("text", "profile", "scale", "permutations"), ("kv",)),
}
"""Options that mean something in some studies only."""

KV_TOKENS = 1000
METHODS_TIMED_BATCHES = 5  # the figure of this study is about time


def ablate(
    context: typer.Context,
    *,
    study: Annotated[
        str,
        typer.Option(
            help="a: head-scoring strategies; b: query strategies at a fixed scorer; methods: named recipes side by"
            " side; kv: KV eviction."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder; trials that are in it already are not run again.")],
    model: Annotated[
        str | None,
        typer.Option(help="A model that ships, a folder or a hub id. [default: demo-llava; in study kv demo-pythia]"),
    ] = None,
    benchmarks: Annotated[
        list[str] | None, typer.Option(help="Benchmarks; repeat. [default: all that need no files]")
    ] = None,
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
        list[str] | None, typer.Option(help="Studies a and b: what is compared; repeat. [default: all installed]")
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Study methods: recipes compared; repeat. [default: all installed that prune visual tokens]"),
    ] = None,
    scorer: Annotated[str, typer.Option(help="Study b: the head scorer that stays fixed.")] = "variance",
    limit: Limit = None,
    seed: Seed = 0,
    batch: Batch = 16,
    data: Data = None,
    positions: Positions = None,
    aggregate: Aggregate = None,
    min_mass: MinMass = None,
    sink_share: SinkShare = None,
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

    Ctrl-C leaves the finished trials; the same command goes on where it stopped. Ends with the report. Study methods
    takes whole methods as they were published, at equal processed averages, and times their prefill. Study kv reads
    one text under every strategy: windows with and without sinks, windows by head class, the same windows dealt to
    heads at random, and the full cache. Heads are classified on the text after the tokens that are scored.
    """
    from rich.console import Console

    from headwise.errors import DataError

    if study not in STUDIES:
        raise DataError(
            f"there is no study {study!r}; give a (head scoring), b (query selection), methods (named recipes) or kv"
            " (KV eviction)"
        )
    _refuse_foreign(context, study)
    console = Console(stderr=True)
    load = {"dtype": dtype, "device": device, "attention": attention}
    if study == "kv":
        from headwise_lab.kv.ablation import KvOptions

        count = _token_count(tokens)
        given = KvOptions(text=text, tokens=count, profile=profile, scale=scale, permutations=permutations)
        _ablate_kv(given, model or "demo-pythia", load, out, console)
        return

    from headwise_lab.benchmarks import synthetic
    from headwise_lab.commands.ending import finish
    from headwise_lab.models_io import load_model
    from headwise_lab.store import Store
    from headwise_lab.sweep import Sweep, sweep
    from headwise_lab.trial import TIMED_BATCHES

    loaded = load_model(model or "demo-llava", **load)
    asked = list(benchmarks or synthetic())
    budgets = _budgets(_default_averages(study, loaded.geometry, recipe), tokens, keep, console)
    if study == "methods":
        cases = _method_cases(asked, budgets, recipe)
    else:
        cases = _head_cases(
            study,
            benchmarks=asked,
            budgets=budgets,
            heads=heads,
            strategies=strategies,
            scorer=scorer,
            of=loaded.geometry.heads,
        )
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
            timed_batches=METHODS_TIMED_BATCHES if study == "methods" else TIMED_BATCHES,
            may_refuse=study == "methods",
        ),
        console,
    )
    title = "Published methods" if study == "methods" else f"Study {study.upper()}"
    finish(store, tally, f"{title}: {loaded.name}", console)


def _refuse_foreign(context: typer.Context, study: str) -> None:
    """Raise DataError for an option that is given and has no meaning in the study."""
    from headwise.errors import DataError

    for name, studies in BELONG_TO.items():
        source = context.get_parameter_source(name)
        if study not in studies and source is not None and source.name != "DEFAULT":
            option, right = f"--{name.replace('_', '-')}", " and ".join(", ".join(studies).rsplit(", ", 1))
            raise DataError(f"{option} belongs to study {right} and means nothing in study {study}; leave it out")


def _method_cases(benchmarks: list[str], budgets: list[Budget], recipes: list[str] | None) -> list[Case]:
    """Study methods."""
    from headwise_lab.studies import methods

    return methods(benchmarks=benchmarks, budgets=budgets, recipes=recipes)


def _head_cases(
    study: str,
    *,
    benchmarks: list[str],
    budgets: list[Budget],
    heads: list[int] | None,
    strategies: list[str] | None,
    scorer: str,
    of: int,
) -> list[Case]:
    """Study a or b on a model with ``of`` heads."""
    from headwise_lab.studies import half, head_counts, study_a, study_b

    if study == "a":
        return study_a(benchmarks=benchmarks, budgets=budgets, heads=heads or head_counts(of), scorers=strategies)
    return [
        case
        for count in heads or [half(of)]
        for case in study_b(benchmarks=benchmarks, budgets=budgets, heads=count, scorer=scorer, queries=strategies)
    ]


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


def _default_averages(
    study: str, geometry: Geometry, recipes: list[str] | None
) -> Callable[[], tuple[tuple[float, ...], tuple[str, ...]]]:
    """Those of seed 002 as far as the model can meet them, in study methods with every recipe."""
    from headwise_lab.studies import averages, common_averages, compared

    if study == "methods":
        return lambda: common_averages(geometry, compared(recipes))
    return lambda: averages(geometry)


def _budgets(
    usual: Callable[[], tuple[tuple[float, ...], tuple[str, ...]]],
    tokens: list[float] | None,
    keep: list[int] | None,
    console: Console,
) -> list[Budget]:
    """The budgets asked for, or the ``usual`` averages, with what there is to say about them."""
    from headwise.budget import Budget
    from headwise.errors import BudgetError

    if tokens and keep:
        raise BudgetError("both --tokens and --keep are given; a study has one kind of budget")
    if keep:
        return [Budget(keep=count) for count in keep]
    told: tuple[str, ...] = ()
    wanted: tuple[float, ...] = tuple(tokens or ())
    if not wanted:
        wanted, told = usual()
    for sentence in told:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    return [Budget(tokens=average) for average in wanted]
