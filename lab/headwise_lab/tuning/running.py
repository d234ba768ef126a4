"""A search from beginning to end: loads model and questions, searches, confirms, and writes the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from headwise_lab.benchmarks import synthetic
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.models.load import Loaded, load_model
from headwise_lab.report.page.grid import grid_csv
from headwise_lab.report.page.latex import latex
from headwise_lab.store.atomic import make_folder, whole
from headwise_lab.store.output_folder import Store
from headwise_lab.sweeps.folder import locked
from headwise_lab.tuning.confirming import Confirmed, Found, best, confirm, measured
from headwise_lab.tuning.database import Memory, need_optuna, opened
from headwise_lab.tuning.display import SearchDisplay
from headwise_lab.tuning.judging import judge
from headwise_lab.tuning.measuring import Bench, PointEvaluator
from headwise_lab.tuning.outcome import SearchOutcome
from headwise_lab.tuning.questions import HELD_OUT, SEARCH, split
from headwise_lab.tuning.schema import SpaceFile
from headwise_lab.tuning.searching import Task, search
from headwise_lab.tuning.space import SearchPoint, Space, space_of

if TYPE_CHECKING:
    from optuna import Trial

REPORTS = ("tune.md", "tune.html")


@attrs.frozen(kw_only=True)
class SearchOptions:
    """The command line's options, beside the space. ``confirm``: how many points of the front are measured again."""

    out: Path
    trials: int = 60
    sampler: str = "tpe"
    cost: str = "processed"
    confirm: int = 8
    command: str = ""


def tune(file: SpaceFile, wanted: SearchOptions, progress: SearchDisplay) -> SearchOutcome:
    """Search, confirm and report; continues where an earlier run of the same search stopped.

    Raises HeadwiseError in one sentence where that is impossible. Finished trials stay however it ends.
    """
    need_optuna()
    loaded = load_model(file.model, dtype=file.dtype, device=file.device, attention=file.attention)
    space = space_of(file, loaded.geometry)
    Store.check(wanted.out, "tune")
    with locked(wanted.out):
        store = Store.open(wanted.out, "tune")
        for warning in store.warnings:
            progress.say(f"warning: {warning}")
        searched, held = _benches(file, wanted, loaded, store, progress.advance)
        with opened(wanted.out, identity(file, wanted, space, loaded, searched.inputs)) as memory, progress:
            outcome = _searched(file, wanted, PointEvaluator.of(searched, wanted.cost), (space, memory, progress))
            chosen = best(outcome.found, wanted.confirm) if wanted.confirm else []
            if chosen:
                outcome = _confirmed(outcome, chosen, held, space, progress)
        _write(outcome, wanted.out)
    return outcome


def _benches(
    file: SpaceFile, wanted: SearchOptions, loaded: Loaded, store: Store, advance: Callable[[int], None]
) -> list[Bench]:
    """The bench for the search, and the bench for the confirmation."""
    count = (file.held_out or file.limit) if wanted.confirm else 0
    parts = split(file.benchmarks or synthetic(), data=file.data, limit=file.limit, held_out=count, seed=file.seed)
    shared: dict[str, object] = {"store": store, "data": file.data, "command": wanted.command, "advance": advance}
    searched, held = parts
    return [
        Bench.of(loaded, searched, file.batch, part=SEARCH, timed_batches=int(wanted.cost == "flops"), **shared),
        Bench.of(loaded, held, file.batch, part=HELD_OUT, timed_batches=1, **shared),  # confirmed points are timed
    ]


def identity(
    file: SpaceFile, wanted: SearchOptions, space: Space, loaded: Loaded, inputs: Sequence[Inputs]
) -> dict[str, object]:
    """Everything that has to stay the same in all runs of a search; trials and confirmation may change."""
    return {
        "model": loaded.name,
        "limit": file.limit,
        "seed": file.seed,
        "sampler": wanted.sampler,
        "cost": wanted.cost,
        **{hook: [choice.label for choice in choices] for hook, choices in space.choices.items()},
        "budget": [space.low, space.high],
        "settings": dict(space.settings),
        "questions": {one.benchmark.name: one.digest for one in inputs},
        **{name: getattr(loaded, name) for name in ("weights", "dtype", "attention", "device")},
    }


def _searched(
    file: SpaceFile, wanted: SearchOptions, judge: PointEvaluator, tools: tuple[Space, Memory, SearchDisplay]
) -> SearchOutcome:
    """Search, from where an earlier run stopped, until ``trials`` trials have ended."""
    space, memory, progress = tools
    progress.begin("search", wanted.trials, sum(trial.state.is_finished() for trial in memory.trials))

    def propose(trial: Trial) -> SearchPoint:
        point = space.propose(trial)
        progress.start(point.label)
        return point

    search(memory, Task(propose, judge.value, progress.end), wanted.trials, wanted.sampler, file.seed)
    return SearchOutcome(
        title=file.title or "Search",
        command=wanted.command,
        cost=wanted.cost,
        trials=memory.trials,
        found=measured(memory.trials, space),
        searched=judge,
    )


def _confirmed(
    outcome: SearchOutcome, chosen: Sequence[Found], bench: Bench, space: Space, progress: SearchDisplay
) -> SearchOutcome:
    progress.begin("confirmation", len(chosen), 0)
    held = PointEvaluator.of(bench, outcome.cost)
    confirmed: list[Confirmed] = []
    for point in confirm(chosen, held, space):
        confirmed.append(point)
        progress.confirmed(point)
    judged = judge(confirmed, outcome.searched, held, bench.store.folder)
    return attrs.evolve(outcome, held=held, judged=judged)


def _write(outcome: SearchOutcome, folder: Path) -> None:
    """Write ``tune.md``, ``tune.html``, tables/ and figures/; each file whole or not at all."""
    from headwise_lab.tuning.page import grids, html_page, markdown_page
    from headwise_lab.tuning.picture import draw

    if not outcome.found:
        return
    for name in ("figures", "tables"):
        make_folder(folder / name)
    picture = draw(outcome, folder / "figures")
    tables = {f"{grid.slug}.{ending}": text(grid) for grid in grids(outcome) for ending, text in _FORMATS.items()}
    pages = dict(zip(REPORTS, (markdown_page(outcome, picture), html_page(outcome, picture)), strict=True))
    for place, texts in ((folder / "tables", tables), (folder, pages)):
        with whole([place / name for name in texts]) as written:
            for path, text in zip(written, texts.values(), strict=True):
                path.write_text(text, encoding="utf-8")


_FORMATS = {"csv": grid_csv, "tex": latex}
