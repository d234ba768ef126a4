"""One language model reads one text under one recipe: its record, and the loss of every token.

The record's ``id`` is a hash over everything that can change the losses. A sweep computes it before a run
(:func:`identity`) and skips the run if its store has the record.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import torch

from headwise.errors import ModelError
from headwise.eviction import ScorePlan
from headwise.heads import HeadProfile
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise_adapters.eviction.streaming import Reading, read_text
from headwise_lab.cost.environment import common_head, identity_of
from headwise_lab.models.load import LoadedLm
from headwise_lab.models.placing import DTYPES
from headwise_lab.stats.means import mean_and_error, perplexity
from headwise_lab.store.outcome_types import TokenOutcome
from headwise_lab.store.record_types import Loss, Metric, Passage, Record, TextRecord, TokenShare
from headwise_lab.texts.tokens import Text

SCHEMA = 1
FULL_CACHE = "none"  # what stands in a record whose recipe names no kv_eviction strategy
DIGITS = 6  # decimals of a loss that are kept


def measure_text(
    loaded: LoadedLm,
    text: Text,
    recipe: Recipe,
    *,
    name: str | None = None,
    group: str | None = None,
    study: str | None = None,
    seed: int = 0,
    command: str | None = None,
    chunk: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[TextRecord, list[TokenOutcome]]:
    """Read ``text`` under ``recipe``; returns the record, and one outcome for every token but the first.

    ``progress`` is called with the number of tokens read so far. ``chunk``: so many tokens are read at once, which
    changes memory and time, not the losses. Raises ModelError where a loss is not a finite number.
    """
    plan = Pipeline(recipe).eviction(loaded.geometry)
    started = time.perf_counter()
    reading = read_text(loaded.model, recipe, text.ids, chunk=chunk, progress=progress)
    seconds = time.perf_counter() - started
    outcomes = outcomes_of(reading)
    command = command or command_line(loaded, text, recipe, chunk=chunk)
    head = head_of_text(loaded, text, recipe, name=name, group=group, study=study, seed=seed, command=command)
    nll, accuracy, perplexed = _quality(outcomes, loaded)
    last = plan.every if isinstance(plan, ScorePlan) else 1
    record = head.finished(
        TextRecord,
        attention_implementation=None,
        attention=loaded.attention,
        n=len(outcomes),
        metric=perplexed,
        nll=nll,
        accuracy=accuracy,
        # between two evictions the entries of a score plan grow, so the last ``every`` tokens are averaged
        context=float(reading.visible[-max(1, last) :].mean()),
        visible=float(reading.visible[:-1].mean()),
        kv_bytes=reading.kv_bytes,
        kv_bytes_planned=plan.kv_bytes(len(reading.visible), itemsize=DTYPES[loaded.dtype].itemsize),
        peak_bytes=reading.peak_bytes,
        seconds=round(seconds, 3),
    )
    return record, outcomes


def identity(loaded: LoadedLm, text: Text, recipe: Recipe, *, seed: int = 0) -> str:
    """The record's id: a hash over everything that can change the losses."""
    return identified(
        loaded, recipe, {"text": text.digest, "tokens": len(text.ids), "seed": seed, "task": "perplexity"}
    )


def identified(loaded: LoadedLm, recipe: Recipe, task: dict[str, object]) -> str:
    """16 hexadecimal digits over a model, a recipe, and the task."""
    strategy = recipe.strategies.get("kv_eviction")
    settings = {
        **description(loaded, recipe),
        "schema": SCHEMA,
        "model": None,  # the name of its folder may change; its weights are in the hash
        "owner": strategy.owner if strategy else None,
    }
    return identity_of(loaded, settings | task)


def description(loaded: LoadedLm, recipe: Recipe) -> dict[str, object]:
    """Which model runs, and what decides which KV entries it keeps."""
    return {
        "model": loaded.name,
        "weights": loaded.weights,
        "dtype": loaded.dtype,
        "attention": loaded.attention,
        "strategies": {"kv_eviction": strategy_text(recipe)},
        "profile": profile_digest(recipe.profile) if reads_profile(recipe) else None,
    }


def strategy_text(recipe: Recipe) -> str:
    """The canonical text of the recipe's eviction strategy; FULL_CACHE where it names none."""
    strategy = recipe.strategies.get("kv_eviction")
    return strategy.text if strategy else FULL_CACHE


def reads_profile(recipe: Recipe) -> bool:
    """Whether the recipe's eviction strategy takes a head profile."""
    strategy = recipe.strategies.get("kv_eviction")
    return strategy is not None and "profile" in inspect.signature(strategy.plugin.kv_eviction).parameters


def profile_digest(profile: HeadProfile | None) -> str | None:
    """16 hexadecimal digits over a profile's content. Saving and loading a profile does not change them."""
    if profile is None:
        return None
    labels, found = profile.labels, hashlib.sha256()
    found.update(json.dumps([labels.names, profile.windows, labels.labels.tolist()]).encode())
    for values in (labels.confidence, labels.probabilities, profile.mass):
        shown = [] if values is None else [f"{value:.6g}" for value in values.ravel().tolist()]
        found.update(json.dumps(shown).encode())
    return found.hexdigest()[:16]


def outcomes_of(reading: Reading) -> list[TokenOutcome]:
    """One outcome per scored token, named by its position; raises ModelError where a loss is not a finite number."""
    if not torch.isfinite(reading.nll).all():
        raise ModelError("the model gives losses that are not finite numbers; try --dtype float32")
    pairs = zip(reading.nll.tolist(), reading.right.tolist(), strict=True)
    return [TokenOutcome(id=str(i), score=round(nll, DIGITS), right=right) for i, (nll, right) in enumerate(pairs, 1)]


def _quality(outcomes: list[TokenOutcome], loaded: LoadedLm) -> tuple[Loss, TokenShare, Metric]:
    nll, nll_se = mean_and_error([outcome.score for outcome in outcomes])
    right, right_se = mean_and_error([float(bool(outcome.right)) for outcome in outcomes])
    try:
        value, se = perplexity(nll, nll_se)
    except OverflowError:
        raise ModelError(f"{loaded.name} has a loss of {nll:.4g} nats per token, too large for a perplexity") from None
    known = len(outcomes) > 1
    return (
        Loss(mean=nll, se=nll_se if known else None),
        TokenShare(value=right, se=right_se if known else None),
        Metric(name="perplexity", value=value, se=se if known else None),
    )


def head_of_text(
    loaded: LoadedLm,
    text: Text,
    recipe: Recipe,
    *,
    name: str | None,
    group: str | None,
    study: str | None,
    seed: int = 0,
    command: str,
) -> Record:
    """The part of a record that is known before anything is read."""
    passage = Passage(name=text.name, digest=text.digest, tokens=len(text.ids))
    head = head_of(loaded, recipe, identity(loaded, text, recipe, seed=seed), command)
    return attrs.evolve(head, study=study, group=group, name=name, text=passage, seed=seed)


def head_of(loaded: LoadedLm, recipe: Recipe, name: str, command: str) -> Record:
    """What a record says about model, recipe and machine, whatever the task is."""
    profile = profile_digest(recipe.profile) if reads_profile(recipe) else None
    head = common_head(loaded, SCHEMA, name, command)
    return attrs.evolve(head, strategies={"kv_eviction": strategy_text(recipe)}, profile=profile)


def command_line(
    loaded: LoadedLm, text: Text, recipe: Recipe, *, profile: str | Path | None = None, chunk: int | None = None
) -> str:
    """The ``headwise ppl`` command that makes only this record; ``profile`` is the file of the recipe's profile."""
    words = ["ppl", "--model", loaded.source, "--text", text.source, "--tokens", str(len(text.ids))]
    words += ["--strategy", strategy_text(recipe)]
    if recipe.profile is not None and reads_profile(recipe):
        words += ["--profile", str(profile or "PROFILE")]
    words += ["--chunk", str(chunk)] if chunk else []
    return shlex.join(["headwise", *words, *loaded.options])
