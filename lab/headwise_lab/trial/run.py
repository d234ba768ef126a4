"""One trial: a model answers a benchmark's questions under a recipe; what that was worth and cost is written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from headwise.attachment import Attachment, attach
from headwise.geometry import Geometry
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise.registry import built, installed, only
from headwise_lab.benchmarks.inputs import Inputs, diversity
from headwise_lab.cost.measured import WATCHED, watched
from headwise_lab.cost.timing import TIMES, counted, mean_text, timed
from headwise_lab.metrics.overlap import Overlap, mean_overlap, overlap
from headwise_lab.models.checkpoints import first_line
from headwise_lab.trial.answering import answered
from headwise_lab.trial.answers import Answer, Answers
from headwise_lab.trial.record import (
    Setting,
    attention,
    budget,
    head_of_record,
    heads,
    identity,
    outcome,
    quality,
    summary,
)


def check(recipe: Recipe, geometry: Geometry) -> PruningPlan:
    """The plan of a recipe for a model; raises whatever would stop the run: an infeasible budget, too many heads."""
    plan = Pipeline(recipe).plan(geometry)
    target = getattr(recipe.strategies["head_count"].plugin, "target", None)
    if target:
        target(geometry.heads)
    return plan


def run_trial(
    setting: Setting,
    inputs: Inputs,
    out: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run one trial; returns its record and one outcome per question. ``advance`` hears of every question answered.

    ``out``: the output folder, where answers stay until the record is written (:mod:`headwise_lab.trial.answers`). What
    is measured beside the answers never costs them: a figure that cannot be had is None, and ``unmeasured`` says why.
    """
    loaded = inputs.loaded
    recorder, timing = observer("recorder"), observer("timing")
    kept = Answers(out, identity(setting, inputs))
    answers, attached = answered(setting.recipe, inputs, kept, recorder, observers=[timing], advance=advance)
    scores = [
        inputs.benchmark.score(question, answer.prediction)
        for question, answer in zip(inputs.questions, answers, strict=True)
    ]
    beside = Beside()
    overlaps = beside.told("overlap", lambda: _overlaps(inputs, answers), [None] * len(answers))
    record = {
        **head_of_record(setting, inputs),
        "budget": budget(setting.recipe, attached.plan),
        "stages": [
            {"layer": stage.layer, "keep": stage.keep, "merged": stage.merged} for stage in attached.plan.stages
        ],
        "heads": heads(answers, loaded.geometry.heads),
        **quality(inputs, answers, scores),
        "cost": _cost(setting, inputs, answers, attached, beside),
        "overlap": mean_overlap(overlaps),
        "attention": attention(answers),
        "pictures": inputs.pictures,
        "diversity": beside.told("diversity", lambda: diversity(inputs.features, [answer.kept for answer in answers])),
        "notes": beside.told("notes", lambda: summary([answer.notes for answer in answers]), {}),
        "timing": {hook: told["ms"] for hook, told in timing.summary().items()},
        **beside.record(),
    }
    return record, [outcome(*row) for row in zip(inputs.questions, answers, scores, overlaps, strict=True)]


class Beside:
    """What is measured beside the answers: a failure is told, and raised to nobody."""

    def __init__(self) -> None:
        self._failed: dict[str, str] = {}

    def told(self, name: str, measure: Callable[[], Any], otherwise: Any = None) -> Any:
        """What ``measure`` gives; ``otherwise`` where it raises anything."""
        try:
            return measure()
        except Exception as error:
            self._failed[name] = f"{type(error).__name__}: {first_line(error)}"
            return otherwise

    def record(self) -> dict[str, Any]:
        """Figure -> why it could not be measured, for the record; nothing where all could."""
        return {"unmeasured": self._failed} if self._failed else {}


def _overlaps(inputs: Inputs, answers: Sequence[Answer]) -> list[Overlap | None]:
    """Kept tokens against boxes; None without boxes, and where a row's tokens are not those of one square picture."""
    return [
        None if truth is None or truth.size != answer.visual else overlap(answer.kept, truth)
        for answer, truth in zip(answers, inputs.truths, strict=True)
    ]


def _cost(
    setting: Setting, inputs: Inputs, answers: Sequence[Answer], attached: Attachment, beside: Beside
) -> dict[str, Any]:
    """What was planned, and what a clock and counters say."""

    def again() -> AbstractContextManager[Attachment]:
        return attach(inputs.loaded.model, setting.recipe)

    text = mean_text([answer.text for answer in answers])
    batches, turns = setting.timed_batches, setting.timed_in_turns
    times = beside.told(
        "times", lambda: timed(inputs.loaded, inputs, batches, again, in_turns=turns), dict.fromkeys(TIMES)
    )
    watch = beside.told("costs", lambda: watched(inputs, again), dict.fromkeys(WATCHED)) if batches else {}
    planned = counted(attached.plan, attached.eviction, text, inputs.loaded.dtype)
    return {**planned, **times, **watch, "batch": inputs.batch}


def observer(name: str) -> Any:
    """A new one of the installed observers."""
    return built(only("observers", name, installed("observers")))
