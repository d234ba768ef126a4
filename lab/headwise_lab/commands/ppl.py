"""``headwise ppl``: perplexity of a text under KV eviction, each strategy paired with the first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.output import answer
from headwise.verbosity import remark, warn
from headwise_lab.commands.options import (
    AsJson,
    Attention,
    Device,
    Dtype,
    Eviction,
    LanguageModel,
    Profile,
    StoreIn,
    Text,
    TextTokens,
)
from headwise_lab.commands.storing import each, opened
from headwise_lab.store.outcome_types import TokenOutcome
from headwise_lab.store.record_types import TextRecord, TokenShare

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwise.recipe import Recipe
    from headwise_lab.models.load import LoadedLm
    from headwise_lab.report.kv.to_first import TextChange
    from headwise_lab.stats.differences import Difference

UNEQUAL = 1.01  # contexts that differ by a larger factor are called unequal


Chunk = Annotated[
    int | None, typer.Option(min=1, help="Tokens read at once; changes memory and time, no figure. [default: 512]")
]


def ppl(
    *,
    model: LanguageModel = "demo-pythia",
    text: Text = "kjv",
    tokens: TextTokens = 1500,
    strategy: Eviction = None,
    profile: Profile = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attention: Attention = "sdpa",
    chunk: Chunk = None,
    out: StoreIn = None,
    as_json: AsJson = False,
) -> None:
    """Perplexity and next-token accuracy of a text when entries of the KV cache are evicted.

    Every token is predicted from the entries that the strategy has kept of the tokens before it. CONTEXT is the
    effective context: the entries that the last token sees, itself included, averaged over layers and KV heads
    (score-based strategies: over the tokens since an eviction). VISIBLE is the same, averaged over all tokens. KV CACHE
    is the memory of keys and values at the end. Without --strategy, the full cache (none) runs. All strategies are
    compared with the first one, token by token.
    """
    from headwise.heads import HeadProfile
    from headwise_lab.kv.measure import command_line, identity, measure_text
    from headwise_lab.kv.recipes import planned
    from headwise_lab.models.load import load_language_model
    from headwise_lab.report.kv.to_first import text_changes
    from headwise_lab.store.locations import place
    from headwise_lab.texts.tokens import tokens_of

    known, to = HeadProfile.load(profile) if profile else None, None if out is None else place(out)
    loaded = load_language_model(model, dtype=dtype, device=device, attention=attention)
    recipes = planned(strategy or ["none"], known, loaded.geometry)
    asked = tokens_of(loaded.tokenizer, text, tokens)
    store = opened(to, "ppl")
    for warning in _warnings(loaded, tokens):
        warn(f"{warning}")

    def measure(recipe: Recipe, advance: Callable[[int], None]) -> tuple[TextRecord, list[TokenOutcome]]:
        command = command_line(loaded, asked, recipe, profile=profile, chunk=chunk)
        return measure_text(loaded, asked, recipe, study="ppl", command=command, chunk=chunk, progress=advance)

    measured = each(
        recipes,
        store,
        lambda recipe: identity(loaded, asked, recipe),
        measure,
        len(asked.ids),
        kinds=(TextRecord, TokenOutcome),
    )
    first, *others = (outcomes for _, outcomes in measured)
    compared = [None, *text_changes(first, others)]
    if as_json:
        shown = [_with_pairs(record, found) for (record, _), found in zip(measured, compared, strict=True)]
        answer(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        _print([record for record, _ in measured], compared)
    if store is not None:
        remark(f"stored in {out}")


def _warnings(loaded: LoadedLm, tokens: int) -> list[str]:
    trained = getattr(loaded.model.config, "max_position_embeddings", None)
    if trained is None or tokens <= trained:
        return []
    return [
        f"{loaded.name} was trained on {trained} tokens at most; with all {tokens} in its cache its predictions may be"
        " useless"
    ]


def _with_pairs(record: TextRecord, found: TextChange | None) -> dict[str, object]:
    """The record with its paired differences to the first strategy."""
    if found is None:
        return {**record.to_json(), "to_first": None}
    value, se = found.ratio
    return {
        **record.to_json(),
        "to_first": {
            "nll": {"mean": found.loss.value, "se": found.loss.se},
            "perplexity_ratio": {"value": value, "se": se},
            "accuracy": {"value": found.right.value, "se": found.right.se},
            "adjusted_p": {"nll": found.loss.adjusted, "accuracy": found.right.adjusted},
            "clear": {"nll": found.loss.clear, "accuracy": found.right.clear},
        },
    }


def _print(records: list[TextRecord], compared: list[TextChange | None]) -> None:
    from headwise_lab.kv.console import show
    from headwise_lab.terminal.tables import text_table

    header = ["Strategy", "Perplexity", "To first, %", "Next token right, %", "To first, points"]
    header += ["Context", "Visible", "KV cache"]
    rows = [_row(record, found) for record, found in zip(records, compared, strict=True)]
    first = records[0]
    title = (
        f"{first.model} on {first.text.name}: {first.n} tokens scored; ± is one standard error."
        " `headwise ppl --help` says what the columns mean."
    )
    show(text_table(header, rows), [title, *_notes(records, [found.loss for found in compared if found])])


def _row(record: TextRecord, found: TextChange | None) -> list[str]:
    from headwise_lab.kv.console import difference, signed, with_error

    right, metric = record.accuracy or TokenShare(), record.metric
    right_se = None if right.se is None else 100 * right.se
    pairs = ["", ""]
    if found is not None:
        ratio, ratio_se = found.ratio
        pairs = [signed(100 * (ratio - 1), 100 * ratio_se, found.loss.clear), difference(found.right)]
    return [
        record.strategies["kv_eviction"],
        with_error(metric.value, metric.se),
        pairs[0],
        with_error(100 * (right.value or 0.0), right_se, 1),
        pairs[1],
        f"{record.context:.1f}",
        f"{record.visible or 0.0:.1f}",
        f"{(record.kv_bytes or 0.0) / 2**20:.3f} MiB",
    ]


def _notes(records: list[TextRecord], found: list[Difference]) -> list[str]:
    """Notes that a reader needs to interpret the differences."""
    from headwise_lab.stats.rule import block_unit, stated

    if len(records) < 2:
        return []
    notes = [f"{stated(found, block_unit(records[0].n))} * marks what is called a difference to the first strategy."]
    contexts = [record.context for record in records if record.context < (record.text.tokens or 0)]
    if contexts and max(contexts) > UNEQUAL * min(contexts):
        notes.append(
            f"The effective contexts differ ({min(contexts):.1f} to {max(contexts):.1f}), and a larger one alone"
            " usually lowers perplexity: compare at equal contexts, as `headwise ablate --study kv` does by"
            " interpolation."
        )
    return notes
