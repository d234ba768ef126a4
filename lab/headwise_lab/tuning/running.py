"""A search from beginning to end: model, questions, points, confirmation, and what is written about them."""

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
from headwise_lab.tuning.judging import judge
from headwise_lab.tuning.measuring import Bench, Judge
from headwise_lab.tuning.outcome import SearchOutcome
from headwise_lab.tuning.progress import Progress
from headwise_lab.tuning.questions import HELD_OUT, SEARCH, split
from headwise_lab.tuning.schema import SpaceFile
from headwise_lab.tuning.searching import Task, search
from headwise_lab.tuning.space import Point, Space, space_of

if TYPE_CHECKING:
    from optuna import Trial

REPORTS = ("tune.md", "tune.html")


@attrs.frozen(kw_only=True)
class Wanted:
    """What the command line asks for, beside the space: ``confirm`` points of the front are measured again."""

    out: Path
    trials: int = 60
    sampler: str = "tpe"
    cost: str = "processed"
    confirm: int = 8
    command: str = ""


def tune(file: SpaceFile, wanted: Wanted, progress: Progress) -> SearchOutcome:
    """Search, confirm and report; goes on where an earlier run of the same search stopped.

    Raises HeadwiseError in one sentence for what stands in the way. Whatever ends it, finished trials stay.
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
            outcome = _searched(file, wanted, Judge.of(searched, wanted.cost), (space, memory, progress))
            chosen = best(outcome.found, wanted.confirm) if wanted.confirm else []
            if chosen:
                outcome = _confirmed(outcome, chosen, held, space, progress)
        _write(outcome, wanted.out)
    return outcome


def _benches(
    file: SpaceFile, wanted: Wanted, loaded: Loaded, store: Store, advance: Callable[[int], None]
) -> list[Bench]:
    """Where points are searched, and where they are confirmed."""
    count = (file.held_out or file.limit) if wanted.confirm else 0
    parts = split(file.benchmarks or synthetic(), data=file.data, limit=file.limit, held_out=count, seed=file.seed)
    shared: dict[str, object] = {"store": store, "data": file.data, "command": wanted.command, "advance": advance}
    searched, held = parts
    return [
        Bench.of(loaded, searched, file.batch, part=SEARCH, timed_batches=int(wanted.cost == "flops"), **shared),
        Bench.of(loaded, held, file.batch, part=HELD_OUT, timed_batches=1, **shared),  # what is left is timed, too
    ]


def identity(
    file: SpaceFile, wanted: Wanted, space: Space, loaded: Loaded, inputs: Sequence[Inputs]
) -> dict[str, object]:
    """Everything that may not change while a search goes on; more trials, and other ways to confirm, may."""
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


def _searched(file: SpaceFile, wanted: Wanted, judge: Judge, tools: tuple[Space, Memory, Progress]) -> SearchOutcome:
    """The search, from where it stopped to the last trial that is asked for."""
    space, memory, progress = tools
    progress.begin("search", wanted.trials, sum(trial.state.is_finished() for trial in memory.trials))

    def propose(trial: Trial) -> Point:
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
    outcome: SearchOutcome, chosen: Sequence[Found], bench: Bench, space: Space, progress: Progress
) -> SearchOutcome:
    progress.begin("confirmation", len(chosen), 0)
    held = Judge.of(bench, outcome.cost)
    confirmed: list[Confirmed] = []
    for point in confirm(chosen, held, space):
        confirmed.append(point)
        progress.confirmed(point)
    judged = judge(confirmed, outcome.searched, held, bench.store.folder)
    return attrs.evolve(outcome, held=held, judged=judged)


def _write(outcome: SearchOutcome, folder: Path) -> None:
    """``tune.md``, ``tune.html``, tables/ and figures/; each whole or not at all."""
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
