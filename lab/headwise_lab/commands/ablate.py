"""``headwise ablate``: study A or B of seed 002, published methods side by side, or the KV study of seed 004."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from collections.abc import Sequence

    from headwise_lab.sweeps.plan import Plan
    from headwise_lab.sweeps.schema import SweepFile

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
ROUGHLY = {"timed_batches": 1, "timed_in_turns": False}  # as in the sweep files of studies a and b
PRECISELY = {"timed_batches": 5}  # the figure of study methods is about time
TITLES = {"a": "Study A", "b": "Study B", "methods": "Published methods", "kv": "Study KV"}
OPTIONS = {"models": "model", "recipes": "recipe", "seeds": "seed", "query_selection": "strategies", "name": "text"}
"""Keys of sweep files whose options have another name; ``head_scoring`` depends on the study."""


Study = Annotated[
    str,
    typer.Option(
        help="a: head-scoring strategies; b: query strategies at a fixed scorer; methods: named recipes side by"
        " side; kv: KV eviction."
    ),
]
Out = Annotated[str, typer.Option(help="Output folder or URL; trials that are in it already are not run again.")]
StudyModel = Annotated[
    str | None,
    typer.Option(help="A model that ships, a folder or a hub id. [default: demo-llava; in study kv demo-pythia]"),
]
Benchmarks = Annotated[list[str] | None, typer.Option(help="Benchmarks; repeat. [default: all that need no files]")]
Averages = Annotated[
    list[float] | None,
    typer.Option(
        help="Processed averages; repeat. [default: a third, 2 ninths, a ninth of the visual tokens] Study kv:"
        f" tokens of the text that are scored. [default: {KV_TOKENS}]"
    ),
]
Kept = Annotated[list[int] | None, typer.Option(help="Visual tokens kept, instead of --tokens; repeat.")]
Heads = Annotated[
    list[int] | None,
    typer.Option(help="Head counts; repeat. [default: 3/4, 1/2 and 1/4 of the heads; in study b 1/2]"),
]
Strategies = Annotated[
    list[str] | None, typer.Option(help="Studies a and b: what is compared; repeat. [default: all installed]")
]
Recipe = Annotated[
    list[str] | None,
    typer.Option(help="Study methods: recipes compared; repeat. [default: all installed that prune visual tokens]"),
]
Scorer = Annotated[str, typer.Option(help="Study b: the head scorer that stays fixed.")]
StudyText = Annotated[str, typer.Option(help="Study kv: a UTF-8 text file, or kjv or shakespeare.")]
Scale = Annotated[
    float | None,
    typer.Option(
        min=0.125, max=8, help="Study kv: windows times this. [default: 1, less for models trained on short texts]"
    ),
]
Permutations = Annotated[
    int,
    typer.Option(
        min=0,
        help="Study kv: times that the windows of a head-aware run are dealt at random; 2 or more for a verdict.",
    ),
]


def ablate(
    context: typer.Context,
    *,
    study: Study,
    out: Out,
    model: StudyModel = None,
    benchmarks: Benchmarks = None,
    tokens: Averages = None,
    keep: Kept = None,
    heads: Heads = None,
    strategies: Strategies = None,
    recipe: Recipe = None,
    scorer: Scorer = "variance",
    limit: Limit = None,
    seed: Seed = 0,
    batch: Batch = 16,
    data: Data = None,
    positions: Positions = None,
    aggregate: Aggregate = None,
    min_mass: MinMass = None,
    sink_share: SinkShare = None,
    text: StudyText = "kjv",
    profile: Profile = None,
    scale: Scale = None,
    permutations: Permutations = 3,
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
    from headwise.errors import BudgetError
    from headwise_lab.commands.sweeping import carry_out, plans_of
    from headwise_lab.terminal import Terminal

    _refuse_foreign(context, study)
    if study == "kv":
        own = _text(text, tokens, scale=scale, permutations=permutations, profile=profile)
    else:
        settings = {"positions": positions, "aggregate": aggregate, "min_mass": min_mass, "sink_share": sink_share}
        own = {"benchmarks": benchmarks or [], "budgets": _budgets(tokens, keep), "settings": settings}
        own |= {"seeds": [seed], "limit": limit, "batch": batch, "data": data}
        own |= _compared(study, heads=heads, strategies=strategies, scorer=scorer, recipe=recipe)
    named = model or ("demo-pythia" if study == "kv" else "demo-llava")
    asked = {"study": study, "models": [named], "dtype": dtype, "device": device, "attention": attention}
    sweep = _judged({**asked, **own})

    def plans(folder: Path) -> Sequence[Plan]:
        return plans_of(sweep, folder, BudgetError)

    carry_out(plans, out, f"study {study}", Terminal(stderr=True), title=sweep.title)


def _refuse_foreign(context: typer.Context, study: str) -> None:
    """Raise DataError for a study that there is not, and for an option that is given and has no meaning in it."""
    from headwise.errors import DataError

    if study not in STUDIES:
        raise DataError(
            f"there is no study {study!r}; give a (head scoring), b (query selection), methods (named recipes) or kv"
            " (KV eviction)"
        )
    for name, studies in BELONG_TO.items():
        source = context.get_parameter_source(name)
        if study not in studies and source is not None and source.name != "DEFAULT":
            option, right = f"--{name.replace('_', '-')}", " and ".join(", ".join(studies).rsplit(", ", 1))
            raise DataError(f"{option} belongs to study {right} and means nothing in study {study}; leave it out")


def _text(
    name: str, tokens: list[float] | None, *, scale: float | None, permutations: int, profile: Path | None
) -> dict[str, Any]:
    """The text that study kv reads, as a table of a sweep file."""
    read = {"name": name, "tokens": _token_count(tokens), "scale": scale, "permutations": permutations}
    return {"text": {**read, "profile": None if profile is None else str(profile)}}


def _compared(
    study: str, *, heads: list[int] | None, strategies: list[str] | None, scorer: str, recipe: list[str] | None
) -> dict[str, Any]:
    """What studies a, b and methods compare, as keys of a sweep file."""
    if study == "methods":
        return {"recipes": recipe or ["*"], **PRECISELY}
    grid: dict[str, Any] = {"heads": heads or []}
    if study == "a":
        grid["head_scoring"] = strategies or ["*"]
    else:
        grid |= {"head_scoring": [scorer], "query_selection": strategies or ["*"]}
        grid |= {} if heads else {"head_shares": [0.5]}
    return {"grids": [grid], **ROUGHLY}


def _budgets(tokens: list[float] | None, keep: list[int] | None) -> dict[str, Any]:
    """The budgets asked for, as a table of a sweep file; without any, those that suit the model are taken."""
    from headwise.errors import BudgetError

    if tokens and keep:
        raise BudgetError("both --tokens and --keep are given; a study has one kind of budget")
    return {"tokens": tokens or [], "keep": keep or []}


def _judged(told: dict[str, Any]) -> SweepFile:
    """The sweep that the options make; raises DataError that names the option where a value is not allowed."""
    from headwise.errors import DataError
    from headwise_lab.models.load import called
    from headwise_lab.schema.wrong_values import WrongValue
    from headwise_lab.sweeps.schema import Budgets, Grid, Settings, SweepFile, TextTable

    def once(values: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(dict.fromkeys(value)) if isinstance(value, list) else value for key, value in values.items()}

    tables = {"budgets": Budgets, "settings": Settings, "text": TextTable}
    try:
        found: dict[str, Any] = {key: tables[key](**once(told[key])) for key in tables if key in told}
        grids = tuple(Grid(**once(grid)) for grid in told.get("grids", ()))
        rest = once({key: value for key, value in told.items() if key not in {*tables, "grids"}})
        title = f"{TITLES[told['study']]}: {called(told['models'][0])}"
        return SweepFile(**rest, **found, grids=grids, title=title)
    except WrongValue as error:
        raise DataError(f"--{_option(error.path, told['study'])}: {error.problem}") from error


def _option(path: str, study: str) -> str:
    """The option that gives a key of a sweep file."""
    key = path.partition("[")[0].rpartition(".")[2]
    if key == "head_scoring":
        return "strategies" if study == "a" else "scorer"
    return OPTIONS.get(key, key).replace("_", "-")


def _token_count(tokens: list[float] | None) -> int:
    """The tokens a text is scored on; raises DataError unless they are one whole number."""
    from headwise.errors import DataError

    if not tokens:
        return KV_TOKENS
    if len(tokens) > 1 or tokens[0] != int(tokens[0]) or tokens[0] < 2:
        told = ", ".join(f"{count:g}" for count in tokens)
        raise DataError(f"--tokens {told}: study kv scores one text of a whole number of tokens; give one, 2 or more")
    return int(tokens[0])
