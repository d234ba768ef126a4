"""Running a KV study's cases one after the other: what is done is skipped, what fails is recorded, Ctrl-C is safe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headwise.errors import DataError, ModelError
from headwise.heads import HeadProfile
from headwise.recipe import Recipe
from headwise_lab.kv.measure import command_line, description, identity, measure_text
from headwise_lab.kv.profiling import trained_context
from headwise_lab.kv.recipes import planned
from headwise_lab.kv.study import KvCase
from headwise_lab.kv.texts import Text
from headwise_lab.models_io import LoadedLm
from headwise_lab.store import Store
from headwise_lab.sweep import Bar
from headwise_lab.tally import Tally


@attrs.frozen(kw_only=True, eq=False)
class KvSweep:
    """A KV study about to be run: model, text, cases, and what holds for all of them.

    ``scale`` says how large windows are beside those of seed 004; ``profile_path`` is where ``profile`` can be read.
    """

    loaded: LoadedLm
    text: Text
    cases: Sequence[KvCase]
    store: Store
    study: str
    profile: HeadProfile | None = None
    profile_path: Path | None = None
    scale: float = 1.0

    def jobs(self) -> list[tuple[KvCase, Recipe]]:
        """Case and recipe; of cases that come to the same strategy the first. Raises whatever would stop a run."""
        found: dict[str, tuple[KvCase, Recipe]] = {}
        recipes = planned([case.text for case in self.cases], self.profile, self.loaded.geometry)
        for case, recipe in zip(self.cases, recipes, strict=True):
            found.setdefault(recipe.strategies["kv_eviction"].text, (case, recipe))
        return list(found.values())


def sweep_kv(given: KvSweep, console: Console) -> Tally:
    """Run every case that is not done yet; all recipes are looked at before the first run."""
    jobs, tokens = given.jobs(), len(given.text.ids)
    with _progress(console) as progress:
        bar = Bar(progress, len(jobs), len(jobs) * tokens)
        try:
            for case, recipe in jobs:
                bar.start(case.name)
                _run_one(given, case, recipe, bar)
                bar.end(tokens)
        except KeyboardInterrupt:
            bar.say(f"Stopped; finished runs are in {given.store.folder}, run again to go on.")
            raise
    return bar.tally


def _run_one(given: KvSweep, case: KvCase, recipe: Recipe, bar: Bar) -> None:
    if given.store.done(identity(given.loaded, given.text, recipe)):
        bar.tally.found += 1
        return
    words: dict[str, Any] = {"study": given.study, "group": case.group, "name": case.name}
    line = command_line(given.loaded, given.text, recipe, profile=given.profile_path)
    try:
        record, outcomes = measure_text(
            given.loaded, given.text, recipe, **words, command=line, progress=_steps(bar.advance)
        )
    except (DataError, ModelError):  # these would befall every other case too
        raise
    except Exception as error:  # whatever a third party's strategy raises costs its own run, not the study
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        given.store.add({**_head(given, recipe), **words, "command": line, "error": reason})
        bar.say(f"failed: {case.name}: {reason}")
        bar.tally.failed += 1
    else:
        trained = trained_context(given.loaded.model)
        given.store.add({**record, "scale": given.scale, "trained_context": trained}, outcomes)
        bar.say(headline(record))
        bar.tally.ran += 1


def _steps(advance: Callable[[int], None]) -> Callable[[int], None]:
    """From tokens read so far to tokens read since."""
    before = 0

    def reached(tokens: int) -> None:
        nonlocal before
        advance(tokens - before)
        before = tokens

    return reached


def _head(given: KvSweep, recipe: Recipe) -> dict[str, Any]:
    """The part of a record that is known before anything is run."""
    text = given.text
    return {
        "schema": 1,
        "id": identity(given.loaded, text, recipe),
        **description(given.loaded, recipe),
        "text": {"name": text.name, "digest": text.digest, "tokens": len(text.ids)},
    }


def headline(record: Mapping[str, Any]) -> str:
    """A record in one line."""
    return f"{record['name']}: perplexity {record['metric']['value']:.2f} at {record['context']:.1f} entries"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("tokens, left:"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
