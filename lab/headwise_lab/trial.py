"""One trial: a model answers a benchmark's questions under a recipe, and what that was worth and cost is written down.

The record's ``id`` is a hash over everything that can change the answers, so a trial that was run need not be run
again, and one whose weights, data, options or versions differ is another trial.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import torch

from headwise.attachment import Attachment, attach
from headwise.geometry import Geometry
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise.registry import installed, load, only
from headwise_lab.costs import watched
from headwise_lab.data import pinned
from headwise_lab.inputs import Batch, Inputs, diversity
from headwise_lab.measure import counted, generate, hardware, mean_text, timed, versions
from headwise_lab.metrics.overlap import Overlap, mean_overlap, overlap

SCHEMA = 1
NEW_TOKENS = 16  # benchmark answers are a word or a phrase
TIMED_BATCHES = 3
INSIDE_THE_TOWER = ("vision", "clip")
"""What a stage reads that shows only while the vision tower runs."""


@attrs.frozen(kw_only=True, eq=False)
class Setting:
    """What is tried beside model and questions: the recipe, and the words that make the trial findable again."""

    recipe: Recipe
    seed: int = 0
    limit: int | None = None
    study: str | None = None
    data: str | Path | None = None
    timed_batches: int = TIMED_BATCHES
    timed_in_turns: bool = True


@attrs.frozen(eq=False)
class Answer:
    """What the model said to one question, the visual tokens it kept, and what the recorder saw (None: no choice)."""

    prediction: str
    kept: list[int]
    seen: Any


def check(recipe: Recipe, geometry: Geometry) -> PruningPlan:
    """The plan of a recipe for a model; raises whatever would stop the run: an infeasible budget, too many heads."""
    plan = Pipeline(recipe).plan(geometry)
    target = getattr(recipe.strategies["head_count"].plugin, "target", None)
    if target:
        target(geometry.heads)
    return plan


def identity(setting: Setting, inputs: Inputs) -> str:
    """16 hexadecimal digits that name a trial by everything that can change its answers."""
    loaded, recipe = inputs.loaded, setting.recipe
    told = {
        "schema": SCHEMA,
        "strategies": texts(recipe),
        "owners": sorted({strategy.owner for strategy in recipe.strategies.values()}),
        "settings": recipe.settings,
        "budget": recipe.budget.text,
        "benchmark": inputs.benchmark.name,
        "questions": inputs.digest,
        "count": len(inputs),
        "limit": setting.limit,
        "seed": setting.seed,
        "weights": loaded.weights,
        "dtype": loaded.dtype,
        "attention": loaded.attention,
        "device": torch.device(loaded.device).type,
        "new_tokens": new_tokens(inputs),
        "versions": {name: number for name, number in versions().items() if name != "python"},
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def new_tokens(inputs: Inputs) -> int:
    """How long an answer may be: what the benchmark says, or enough for a phrase."""
    return int(getattr(inputs.benchmark, "new_tokens", NEW_TOKENS))


def texts(recipe: Recipe) -> dict[str, str]:
    """Hook -> canonical strategy text."""
    return {hook: strategy.text for hook, strategy in recipe.strategies.items()}


def run_trial(
    setting: Setting, inputs: Inputs, advance: Callable[[int], None] = lambda _: None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run one trial; returns its record and one outcome per question. ``advance`` hears of every question answered."""
    loaded = inputs.loaded
    recorder, timing = _observer("recorder"), _observer("timing")
    with attach(loaded.model, setting.recipe, observers=[recorder, timing]) as attached:
        lengths: list[int] = []
        answers: list[Answer] = []
        shared = shared_by(attached)
        for batch in inputs.batches():
            answers += ask(inputs, batch, recorder, shared)
            lengths += batch.text
            advance(len(batch.visual))
    times = timed(
        loaded,
        inputs,
        setting.timed_batches,
        lambda: attach(loaded.model, setting.recipe),
        in_turns=setting.timed_in_turns,
    )
    overlaps = [
        None if truth is None else overlap(answer.kept, truth)
        for answer, truth in zip(answers, inputs.truths, strict=True)
    ]
    scores = [
        inputs.benchmark.score(question, answer.prediction)
        for question, answer in zip(inputs.questions, answers, strict=True)
    ]
    record = {
        **head_of_record(setting, inputs),
        "budget": _budget(setting.recipe, attached.plan),
        "stages": [
            {"layer": stage.layer, "keep": stage.keep, "merged": stage.merged} for stage in attached.plan.stages
        ],
        "heads": _heads(answers, loaded.geometry.heads),
        **_quality(inputs, answers, scores),
        "cost": {
            **counted(attached.plan, attached.eviction, mean_text(lengths), loaded.dtype),
            **times,
            **(watched(inputs, lambda: attach(loaded.model, setting.recipe)) if setting.timed_batches else {}),
            "batch": inputs.batch,
        },
        "overlap": mean_overlap(overlaps),
        "attention": _attention(answers),
        "pictures": inputs.pictures,
        "diversity": diversity(inputs.features, [answer.kept for answer in answers]),
        "notes": summary([answer.seen.notes for answer in answers if answer.seen is not None]),
        "timing": {hook: told["ms"] for hook, told in timing.summary().items()},
    }
    return record, [_outcome(*row) for row in zip(inputs.questions, answers, scores, overlaps, strict=True)]


def head_of_record(setting: Setting, inputs: Inputs) -> dict[str, Any]:
    """The part of a record that is known before anything is run."""
    loaded, recipe = inputs.loaded, setting.recipe
    return {
        "schema": SCHEMA,
        "id": identity(setting, inputs),
        "study": setting.study,
        "model": loaded.name,
        "weights": loaded.weights,
        "dtype": loaded.dtype,
        "attention_implementation": loaded.attention,
        "strategies": texts(recipe),
        "recipe": recipe.name,
        "settings": recipe.settings,
        "benchmark": inputs.benchmark.name,
        "questions": inputs.digest,
        "seed": setting.seed,
        "limit": setting.limit,
        "versions": versions(),
        "hardware": hardware(loaded.device),
        "command": command(setting, inputs),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def command(setting: Setting, inputs: Inputs) -> str:
    """The command line that runs this trial alone."""
    loaded, recipe = inputs.loaded, setting.recipe
    options: dict[str, Any] = {"model": loaded.source, "benchmark": inputs.benchmark.name, "recipe": recipe.name}
    options |= {"tokens": recipe.budget.tokens, "keep": recipe.budget.keep}
    words = ["headwise", "run", *_words(options)]
    usual = Recipe.of(name=recipe.name)
    implied = texts(usual) if recipe.name else {}
    for hook, text in texts(recipe).items():
        words += [] if implied.get(hook) == text else ["--strategy", f"{hook}={text}"]
    options = {key: value for key, value in recipe.settings.items() if value != usual.settings[key]}
    options |= {"limit": setting.limit, "seed": setting.seed or None, "batch": inputs.batch}
    options["data"] = pinned(setting.data, inputs.benchmark)
    defaults = (("dtype", "float32"), ("device", "cpu"), ("attention", "sdpa"))
    options |= {key: getattr(loaded, key) for key, default in defaults if getattr(loaded, key) != default}
    return shlex.join([*words, *_words(options)])


def _words(options: Mapping[str, Any]) -> list[str]:
    given = {key: value for key, value in options.items() if value is not None}
    shown = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in given.items()}
    return [word for key, value in shown.items() for word in (f"--{key.replace('_', '-')}", value)]


def _observer(name: str) -> Any:
    return load(only("observers", name, installed("observers")))()


@attrs.frozen
class Shared:
    """What trials of other recipes compute just so: the first ``layers`` decoder layers, and the vision ``tower``."""

    layers: int = 0
    tower: bool = True


def shared_by(attached: Attachment) -> Shared:
    """What an attached recipe leaves as it is: the layers before its first stage, unless KV entries are evicted.

    The tower is run where a strategy watches it from the inside. The unpruned model runs whole: it comes once.
    """
    stages = attached.plan.stages
    return Shared(
        layers=stages[0].layer if stages and attached.eviction.keeps_everything else 0,
        tower=not any(reads in stage.reads for stage in stages for reads in INSIDE_THE_TOWER),
    )


@torch.inference_mode()
def ask(inputs: Inputs, batch: Batch, recorder: Any, shared: Shared = Shared()) -> list[Answer]:
    """The model's answers to one batch, and what was kept for each row."""
    loaded = inputs.loaded
    with inputs.prefix.remembered(batch.first, shared.layers, tower=shared.tower):
        ids = generate(loaded, batch.on(loaded), new_tokens(inputs))
    predictions = loaded.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    seen = recorder.take()
    return [
        Answer(prediction.strip(), seen[row].kept if row in seen else list(range(visual)), seen.get(row))
        for row, (prediction, visual) in enumerate(zip(predictions, batch.visual, strict=True))
    ]


def _budget(recipe: Recipe, plan: PruningPlan) -> dict[str, Any]:
    reported = {} if plan.reported is None else {"reported": round(plan.reported, 4)}
    return {
        "given": recipe.budget.text,
        "processed": round(plan.average, 4),
        **reported,
        "kept": plan.kept,
        "visual": plan.geometry.visual_tokens,
    }


def _heads(answers: Sequence[Answer], of: int) -> dict[str, Any]:
    """Heads kept per question; None where no plan asked for them."""
    counts = [len(answer.seen.heads) for answer in answers if answer.seen is not None and answer.seen.heads]
    if not counts:
        return {"of": of, "mean": None, "sd": None}
    return {"of": of, "mean": statistics.fmean(counts), "sd": statistics.pstdev(counts)}


def _quality(inputs: Inputs, answers: Sequence[Answer], scores: Sequence[float]) -> dict[str, Any]:
    """The headline with its standard error, and the official figures beside it."""
    benchmark = inputs.benchmark
    units = list(benchmark.units(inputs.questions, scores).values())
    error = statistics.stdev(units) / math.sqrt(len(units)) if len(units) > 1 else None
    return {
        "n": len(inputs),
        "units": len(units),
        "metric": {
            "name": benchmark.metric,
            "value": benchmark.scale * statistics.fmean(units),
            "se": None if error is None else benchmark.scale * error,
        },
        "metrics": benchmark.metrics(inputs.questions, [answer.prediction for answer in answers]),
    }


def _attention(answers: Sequence[Answer]) -> dict[str, float | None] | None:
    """How much of the image attention the kept tokens drew and how even the token scores were, over questions."""
    found = {
        name: [value for answer in answers if (value := getattr(answer.seen, name, None)) is not None]
        for name in ("concentration", "entropy")
    }
    if not any(found.values()):
        return None
    return {name: statistics.fmean(values) if values else None for name, values in found.items()}


def summary(notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Notes of many rows in brief: numbers as mean and deviation, everything else counted, objects key by key."""
    keys = dict.fromkeys(key for note in notes for key in note)
    return {key: _brief([note[key] for note in notes if key in note]) for key in keys}


def _brief(values: Sequence[Any]) -> Any:
    if all(isinstance(value, Mapping) for value in values):
        return summary(values)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"mean": statistics.fmean(values), "sd": statistics.pstdev(values)}
    return dict(Counter(str(value) for value in values).most_common())


def _outcome(question: Any, answer: Answer, score: float, found: Overlap | None) -> dict[str, Any]:
    return {
        "id": question.id,
        "unit": question.unit,
        "kind": question.kind,
        "image": str(question.image),
        "question": question.text,
        "answers": list(question.answers),
        "prediction": answer.prediction,
        "score": score,
        "boxes": [list(box) for box in question.boxes],
        "kept": answer.kept,
        "heads": [] if answer.seen is None else answer.seen.heads,
        "recall": None if found is None else found.recall,
    }
