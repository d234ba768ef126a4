"""``headwise needle``: passkey retrieval over context length and depth under KV eviction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.output import answer
from headwise.verbosity import remark
from headwise_lab.commands.options import (
    AsJson,
    Attention,
    Device,
    Dtype,
    Eviction,
    LanguageModel,
    Profile,
    StoreIn,
)
from headwise_lab.commands.storing import each, opened
from headwise_lab.store.outcome_types import PasskeyOutcome
from headwise_lab.store.record_types import NeedleRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwise.recipe import Recipe
    from headwise_lab.models.load import LoadedLm
    from headwise_lab.report.kv.to_first import PromptChange
    from headwise_lab.stats.differences import Difference

LONGEST = 2**22
"""The most tokens of a prompt: making a longer one takes minutes, and no model reads it."""


Lengths = Annotated[str, typer.Option(help="Prompt lengths in tokens, separated by commas.")]
Depths = Annotated[int, typer.Option(min=1, help="Places of the passkey, evenly from beginning to end.")]
Repeats = Annotated[int, typer.Option(min=1, help="Prompts for each length and depth, each with its own key.")]
Filler = Annotated[
    str, typer.Option(help="grass (five sentences over and over), kjv, shakespeare, or a UTF-8 text file.")
]
PasskeySeed = Annotated[int, typer.Option(min=0, help="Seed of the passkeys.")]
PromptBatch = Annotated[int, typer.Option(min=1, help="Prompts asked at once.")]


def needle(
    *,
    model: LanguageModel = "smollm2",
    strategy: Eviction = None,
    lengths: Lengths = "512,1024,2048",
    depths: Depths = 5,
    repeats: Repeats = 1,
    filler: Filler = "grass",
    profile: Profile = None,
    seed: PasskeySeed = 0,
    batch: PromptBatch = 4,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "sdpa",
    out: StoreIn = None,
    as_json: AsJson = False,
) -> None:
    """Hide a passkey in a long text and ask for it at the end.

    A passkey counts as found if its five digits are in the greedy answer. LOG-PROB is the mean log-probability of the
    passkey's tokens when the model is forced to write them; it also ranks strategies under which no passkey is found.
    All strategies get the same prompts; differences to the first strategy are paired. Without --strategy, the full
    cache (none) runs.
    """
    from headwise.heads import HeadProfile
    from headwise_lab.kv.needle import find_passkeys, identity
    from headwise_lab.kv.passkey import PasskeyPrompts
    from headwise_lab.kv.recipes import planned
    from headwise_lab.models.load import load_language_model
    from headwise_lab.store.locations import place
    from headwise_lab.store.record_types import PasskeyGrid

    known, to = HeadProfile.load(profile) if profile else None, None if out is None else place(out)
    grid = PasskeyGrid(lengths=_numbers(lengths), depths=depths, repeats=repeats, filler=filler, seed=seed)
    loaded = load_language_model(model, dtype=dtype, device=device, attention=attention)
    recipes = planned(strategy or ["none"], known, loaded.geometry)
    prompts = PasskeyPrompts(loaded.tokenizer, filler, seed).prompts(grid.lengths, depths, repeats)
    store = opened(to, "needle")

    def measure(recipe: Recipe, advance: Callable[[int], None]) -> tuple[NeedleRecord, list[PasskeyOutcome]]:
        return find_passkeys(loaded, recipe, prompts, grid, batch=batch, profile=profile, progress=advance)

    measured = each(
        recipes,
        store,
        lambda recipe: identity(loaded, recipe, prompts),
        measure,
        len(prompts),
        kinds=(NeedleRecord, PasskeyOutcome),
    )
    records = [record for record, _ in measured]
    if as_json:
        changes = map(_plain, _changes(measured))
        shown = [{**record.to_json(), "to_first": change} for record, change in zip(records, changes, strict=True)]
        answer(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        _print(measured, loaded, recipes)
    if store is not None:
        _draw(records, store.folder)


def _numbers(text: str) -> list[int]:
    """The lengths in a text such as ``512,1024``, ascending and each once."""
    from headwise.errors import DataError
    from headwise.numbers import whole

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        shown = text if len(text) <= 80 else f"{text[:76]}..."
        raise DataError(f"--lengths {shown!r} is not a list of whole numbers; write --lengths 512,1024")
    try:
        return sorted({whole(part, LONGEST) for part in parts})
    except ValueError as error:
        raise DataError(f"--lengths: {error}; write --lengths 512,1024") from error


def _changes(measured: list[tuple[NeedleRecord, list[PasskeyOutcome]]]) -> list[PromptChange | None]:
    """Every strategy's difference to the first; None for the first itself."""
    from headwise_lab.report.kv.to_first import prompt_changes

    first, *others = (outcomes for _, outcomes in measured)
    return [None, *prompt_changes(first, others)]


def _plain(change: PromptChange | None) -> dict[str, object] | None:
    if change is None:
        return None
    found = {"found": change.found, "logprob": change.logprob}
    return {
        name: {"mean": one.value, "se": one.se, "adjusted_p": one.adjusted, "clear": one.clear}
        for name, one in found.items()
    }


def _print(measured: list[tuple[NeedleRecord, list[PasskeyOutcome]]], loaded: LoadedLm, recipes: list[Recipe]) -> None:
    from headwise_lab.kv.console import show
    from headwise_lab.terminal.tables import text_table

    records = [record for record, _ in measured]
    header = ["Strategy", *(f"{found.length}" for found in records[0].lengths), "Mean, %", "To first, points"]
    changes = _changes(measured)
    rows = [_row(record, change) for record, change in zip(records, changes, strict=True)]
    notes = _notes(records, [change.found for change in changes if change], loaded, recipes)
    show(text_table([*header, "Log-prob", "To first"], rows), notes)


def _row(record: NeedleRecord, change: PromptChange | None) -> list[str]:
    from headwise_lab.kv.console import difference, with_error

    return [
        record.strategies["kv_eviction"],
        *(f"{100 * one.metric.value:.0f}" for one in record.lengths),
        with_error(100 * record.metric.value, 100 * (record.metric.se or 0.0), 1),
        difference(change.found) if change else "",
        with_error(record.logprob.mean or 0.0, record.logprob.se),
        difference(change.logprob, 1.0, 2) if change else "",
    ]


def _notes(
    records: list[NeedleRecord], changes: list[Difference], loaded: LoadedLm, recipes: list[Recipe]
) -> list[str]:
    """Notes that a reader needs to interpret the figures."""
    from headwise.eviction import WindowPlan
    from headwise.pipeline import Pipeline
    from headwise_lab.stats.rule import stated

    plans = [Pipeline(recipe).eviction(loaded.geometry) for recipe in recipes]
    windows = [plan for plan in plans if isinstance(plan, WindowPlan)]
    full = [record for record, plan in zip(records, plans, strict=True) if plan in windows and plan.keeps_everything]
    notes = [
        f"{loaded.name}: per cent of passkeys found by context length, {records[0].n} prompts for each strategy; ±"
        " is one standard error (binomial; it says 0 where all or none are found)."
    ]
    if len(records) > 1:
        notes.append(f"{stated(changes, 'prompt')} * marks what is called a difference to the first strategy.")
    if any(not plan.keeps_everything for plan in windows):
        notes.append(
            "Where positions alone decide, the question sees only the entries in its windows; a passkey further back"
            " can reach it only through tokens in between."
        )
    if not full:
        notes.append("Whether the model can do the task at all is not known: add --strategy none, the full cache.")
    elif not full[0].metric.value:
        notes.append(
            f"With its full cache {loaded.name} finds no passkey: it cannot do this task, and nothing follows about the"
            " strategies."
        )
    return notes


def _draw(records: list[NeedleRecord], folder: Path) -> None:
    from headwise_lab.report.kv.heat_map import draw_passkeys
    from headwise_lab.store.working_copy import at_hand

    with at_hand(folder, writes=True) as local:
        drawn = [draw_passkeys(record, local / "figures") for record in records]
    for path in drawn:
        remark(f"heat map: {folder / 'figures' / path.name}")
