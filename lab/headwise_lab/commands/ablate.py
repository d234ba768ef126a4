"""``headwise ablate``: one study from its plan to its report; the studies themselves are found by entry point."""

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
from headwise_lab.kv.study import TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwise_lab.sweeps.plan import Plan
    from headwise_lab.sweeps.schema import SweepFile
    from headwise_lab.sweeps.study import Study as StudyKind

EVERYWHERE = ("study", "model", "out", "dtype", "device", "attention")
"""Options that mean something in every study."""

Study = Annotated[
    str,
    typer.Option(
        help="a: head-scoring strategies; b: query strategies at a fixed scorer; methods: named recipes side by"
        " side; kv: KV eviction; or another that is installed, as NAME[:option=value,...]."
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
        f" tokens of the text that are scored. [default: {TOKENS}]"
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
        help="Study kv: times that the windows of a head-aware run are shuffled; 2 or more for a verdict.",
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
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "sdpa",
) -> None:
    """Compare strategies in a full grid.

    Ctrl-C leaves the finished trials; the same command goes on where it stopped. Ends with the report. Study methods
    takes whole methods as they were published, at equal processed averages, and times their prefill. Study kv reads
    one text under every strategy: windows with and without sinks, windows by head class, the same windows
    shuffled over the heads, and the full cache. Heads are classified on the text after the tokens that are scored.
    """
    from headwise.errors import BudgetError
    from headwise.text import StrategyText
    from headwise_lab.commands.sweeping import carry_out, plans_of
    from headwise_lab.sweeps.study import find_study
    from headwise_lab.terminal import beside

    _check_known(study)
    asked = find_study(study)
    _refuse_foreign(context, study, asked)
    told = {"study": study, "models": [model or asked.model], "dtype": dtype, "device": device, "attention": attention}
    sweep = _judged({**told, **asked.table(context.params)}, asked)

    def plans(folder: Path) -> Sequence[Plan]:
        return plans_of(sweep, folder, BudgetError)

    carry_out(plans, out, f"study {StrategyText.parse(study).name}", beside(), title=sweep.title)


def _check_known(study: str) -> None:
    """Raise DataError with what every study compares for a study that is not installed."""
    from headwise.errors import DataError
    from headwise.text import StrategyText
    from headwise_lab.report.studies import names
    from headwise_lab.sweeps.study import studies

    if StrategyText.parse(study).name not in names():
        told = [f"{name} ({other.about})" for name, other in studies().items()]
        raise DataError(f"there is no study {study!r}; give {', '.join(told[:-1])} or {told[-1]}")


def _refuse_foreign(context: typer.Context, study: str, asked: StudyKind) -> None:
    """Raise DataError for an option that is given and means nothing in the study."""
    from headwise.errors import DataError
    from headwise_lab.sweeps.study import studies

    for name in context.params:
        source = context.get_parameter_source(name)
        given = source is not None and source.name != "DEFAULT"
        if given and name not in (*EVERYWHERE, *asked.options):
            homes = [other for other, found in studies().items() if name in found.options]
            option, right = f"--{name.replace('_', '-')}", " and ".join(", ".join(homes).rsplit(", ", 1))
            raise DataError(f"{option} belongs to study {right} and means nothing in study {study}; leave it out")


def _judged(told: Mapping[str, Any], asked: StudyKind) -> SweepFile:
    """The sweep that the options make; raises DataError that names the option where a value is not allowed."""
    from headwise.errors import DataError
    from headwise_lab.models.load import called
    from headwise_lab.schema.wrong_values import WrongValue
    from headwise_lab.sweeps.schema import Budgets, Grid, Settings, SweepFile, TextTable

    def once(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: tuple(dict.fromkeys(value)) if isinstance(value, list) else value for key, value in values.items()}

    tables = {"budgets": Budgets, "settings": Settings, "text": TextTable}
    try:
        found: dict[str, Any] = {key: tables[key](**once(told[key])) for key in tables if key in told}
        grids = tuple(Grid(**once(grid)) for grid in told.get("grids", ()))
        rest = once({key: value for key, value in told.items() if key not in {*tables, "grids"}})
        return SweepFile(**rest, **found, grids=grids, title=f"{asked.title}: {called(told['models'][0])}")
    except WrongValue as error:
        raise DataError(f"--{_option(error.path, asked)}: {error.problem}") from error


def _option(path: str, asked: StudyKind) -> str:
    """The option that gives a key of a sweep file."""
    key = path.partition("[")[0].rpartition(".")[2]
    given = {told: option for option, told in asked.options.items()}
    return {"models": "model", **given}.get(key, key).replace("_", "-")
