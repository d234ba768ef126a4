"""What a trial writes down: its settings, the head of its record, and figures over its answers.

The record's ``id`` is a hash over everything that can change the answers. A trial with a known id need not run again; a
trial whose weights, data, options or versions differ has another id.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise_lab.benchmarks import Question
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.questions import pinned
from headwise_lab.cost.environment import common_head, identity_of
from headwise_lab.metrics.overlap import TokenOverlap
from headwise_lab.store.merging import middle
from headwise_lab.store.outcome_types import QuestionOutcome
from headwise_lab.store.record_types import Attention, Heads, Metric, Record, TokenBudget
from headwise_lab.trial.answering import new_tokens
from headwise_lab.trial.answers import Answer

SCHEMA = 1

TIMED_BATCHES = 3


@attrs.frozen(kw_only=True, eq=False)
class Setting:
    """What a trial has apart from model and questions: its recipe, and what its record and its command repeat."""

    recipe: Recipe
    seed: int = 0
    limit: int | None = None
    study: str | None = None
    data: str | Path | None = None
    timed_batches: int = TIMED_BATCHES
    timed_in_turns: bool = True


def identity(setting: Setting, inputs: Inputs) -> str:
    """The record's id: a hash over everything that can change the answers."""
    recipe = setting.recipe
    settings = {
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
        "new_tokens": new_tokens(inputs),
    }
    return identity_of(inputs.loaded, settings)


def texts(recipe: Recipe) -> dict[str, str]:
    """Hook -> canonical strategy text."""
    return {hook: strategy.text for hook, strategy in recipe.strategies.items()}


def head_of_record(setting: Setting, inputs: Inputs) -> Record:
    """The part of a record that is known before anything is run."""
    recipe = setting.recipe
    return attrs.evolve(
        common_head(inputs.loaded, SCHEMA, identity(setting, inputs), command(setting, inputs)),
        study=setting.study,
        strategies=texts(recipe),
        recipe=recipe.name,
        settings=recipe.settings,
        benchmark=inputs.benchmark.name,
        questions=inputs.digest,
        seed=setting.seed,
        limit=setting.limit,
    )


def command(setting: Setting, inputs: Inputs) -> str:
    """The command line that runs only this trial."""
    loaded, recipe = inputs.loaded, setting.recipe
    options: dict[str, object] = {"model": loaded.source, "benchmark": inputs.benchmark.name, "recipe": recipe.name}
    options |= {"tokens": recipe.budget.tokens, "keep": recipe.budget.keep}
    words = ["headwise", "run", *_words(options)]
    implied = texts(Recipe.of(name=recipe.name)) if recipe.name else {}
    named = [f"{hook}={text}" for hook, text in texts(recipe).items() if implied.get(hook) != text]
    usual = Recipe.of(*named, name=recipe.name)
    if texts(usual) != texts(recipe):  # a replaced strategy brings other strategies with it than the recipe
        named = [f"{hook}={text}" for hook, text in texts(recipe).items()]
        usual = Recipe.of(*named, name=recipe.name)
    words += [word for text in named for word in ("--strategy", text)]
    options = {key: value for key, value in recipe.settings.items() if value != usual.settings[key]}
    options |= {"limit": setting.limit, "seed": setting.seed or None, "batch": inputs.batch}
    options["data"] = pinned(setting.data, inputs.benchmark)
    return shlex.join([*words, *_words(options), *loaded.options])


def _words(options: Mapping[str, object]) -> list[str]:
    given = {key: value for key, value in options.items() if value is not None}
    shown = {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in given.items()}
    return [word for key, value in shown.items() for word in (f"--{key.replace('_', '-')}", value)]


def budget(recipe: Recipe, plan: PruningPlan) -> TokenBudget:
    """The budget that was given, and the tokens that the plan processes and keeps."""
    return TokenBudget(
        given=recipe.budget.text,
        processed=round(plan.average, 4),
        reported=None if plan.reported is None else round(plan.reported, 4),
        kept=plan.kept,
        visual=plan.geometry.visual_tokens,
    )


def heads(answers: Sequence[Answer], of: int) -> Heads:
    """Mean and deviation of the heads kept per question; empty where no strategy chose heads."""
    counts = [len(answer.heads) for answer in answers if answer.heads]
    if not counts:
        return Heads(of=of)
    return Heads(of=of, mean=statistics.fmean(counts), sd=statistics.pstdev(counts))


def quality(inputs: Inputs, scores: Sequence[float]) -> tuple[Metric, int]:
    """The headline with its standard error, and the number of units that it is the mean of."""
    benchmark = inputs.benchmark
    units = list(benchmark.units(inputs.questions, scores).values())
    error = statistics.stdev(units) / math.sqrt(len(units)) if len(units) > 1 else None
    se = None if error is None else benchmark.scale * error
    return Metric(name=benchmark.metric, value=benchmark.scale * statistics.fmean(units), se=se), len(units)


def attention(answers: Sequence[Answer]) -> Attention | None:
    """The share of image attention on the kept tokens, and the entropy of token scores, averaged over questions."""
    concentration = middle([answer.concentration for answer in answers], statistics.fmean)
    entropy = middle([answer.entropy for answer in answers], statistics.fmean)
    return (
        None if concentration is None and entropy is None else Attention(concentration=concentration, entropy=entropy)
    )


def summary(notes: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The notes of many rows, key by key: mean and deviation of numbers, a summary of objects, counts of all else."""
    keys = dict.fromkeys(key for note in notes for key in note)
    return {key: _brief([note[key] for note in notes if key in note]) for key in keys}


def _brief(values: Sequence[object]) -> dict[str, object]:
    objects = [value for value in values if isinstance(value, Mapping)]
    if len(objects) == len(values):
        return summary(objects)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        return {"mean": statistics.fmean(numbers), "sd": statistics.pstdev(numbers)}
    return dict(Counter(str(value) for value in values).most_common())


def outcome(question: Question, answer: Answer, score: float, found: TokenOverlap | None) -> QuestionOutcome:
    """The outcome of one question, as it is stored."""
    return QuestionOutcome(
        id=question.id,
        unit=question.unit,
        kind=question.kind,
        image=str(question.image),
        question=question.text,
        answers=list(question.answers),
        prediction=answer.prediction,
        score=score,
        boxes=[list(box) for box in question.boxes],
        kept=answer.kept,
        stages=answer.stages if len(answer.stages) > 1 else [],
        heads=answer.heads,
        recall=None if found is None else found.recall,
    )
