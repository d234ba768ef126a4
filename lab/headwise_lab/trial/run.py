"""One trial: a model answers a benchmark's questions under a recipe; its record holds scores and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from headwise.attachment import Attachment, attach
from headwise.geometry import Geometry
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise.registry import built, installed, only
from headwise_lab.benchmarks.inputs import Inputs, diversity
from headwise_lab.cost.measured import watched
from headwise_lab.cost.timing import counted, timed
from headwise_lab.metrics.overlap import TokenOverlap, mean_overlap, overlap
from headwise_lab.models.checkpoints import first_line
from headwise_lab.schema.json_schema import structured
from headwise_lab.store.merging import joined
from headwise_lab.store.outcome_types import QuestionOutcome
from headwise_lab.store.record_types import Cost, Overlap, PruningStage, VisualRecord, WatchedCost
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

T = TypeVar("T")


def check(recipe: Recipe, geometry: Geometry) -> PruningPlan:
    """The plan of a recipe for a model; raises what would stop a run, such as an infeasible budget."""
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
) -> tuple[VisualRecord, list[QuestionOutcome]]:
    """Run one trial; returns its record and one outcome per question.

    ``out``: the output folder, which keeps answers until the record is written (:mod:`headwise_lab.trial.answers`).
    ``advance`` is called with the number of questions just answered. A figure that cannot be measured does not stop the
    trial: it is None, and ``unmeasured`` says why.
    """
    loaded = inputs.loaded
    recorder, timing = observer("recorder"), observer("timing")
    kept = Answers(out, identity(setting, inputs))
    answers, attached = answered(setting.recipe, inputs, kept, recorder, observers=[timing], advance=advance)
    scores = [
        inputs.benchmark.score(question, answer.prediction)
        for question, answer in zip(inputs.questions, answers, strict=True)
    ]
    attempts = Attempts()
    nothing: list[TokenOverlap | None] = [None] * len(answers)
    overlaps = attempts.result("overlap", lambda: _overlaps(inputs, answers), nothing)
    no_notes: dict[str, object] = {}
    covered = mean_overlap(overlaps)
    metric, units = quality(inputs, scores)
    record = head_of_record(setting, inputs).finished(
        VisualRecord,
        budget=budget(setting.recipe, attached.plan),
        stages=[
            PruningStage(layer=stage.layer, keep=stage.keep, merged=stage.merged) for stage in attached.plan.stages
        ],
        heads=heads(answers, loaded.geometry.heads),
        n=len(inputs),
        units=units,
        metric=metric,
        metrics=inputs.benchmark.metrics(inputs.questions, [answer.prediction for answer in answers]),
        cost=_cost(setting, inputs, answers, attached, attempts),
        overlap=None if covered is None else structured(covered, Overlap),
        attention=attention(answers),
        pictures=inputs.pictures,
        diversity=attempts.result(
            "diversity", lambda: diversity(inputs.features, [answer.kept for answer in answers]), None
        ),
        notes=attempts.result("notes", lambda: summary([answer.notes for answer in answers]), no_notes),
        timing={hook: measured["ms"] for hook, measured in timing.summary().items()},
        unmeasured=attempts.failed or None,
    )
    return record, [outcome(*row) for row in zip(inputs.questions, answers, scores, overlaps, strict=True)]


class Attempts:
    """Attempts to measure more than the answers. A failure is recorded and not raised."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def result(self, name: str, measure: Callable[[], T], otherwise: T) -> T:
        """What ``measure`` returns; ``otherwise`` where it raises an error."""
        try:
            return measure()
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {first_line(error)}"
            return otherwise


def _overlaps(inputs: Inputs, answers: Sequence[Answer]) -> list[TokenOverlap | None]:
    """Kept tokens against boxes; None without boxes, or where a row's tokens do not form one square picture."""
    return [
        None if truth is None or truth.size != answer.visual else overlap(answer.kept, truth)
        for answer, truth in zip(answers, inputs.truths, strict=True)
    ]


def _cost(
    setting: Setting, inputs: Inputs, answers: Sequence[Answer], attached: Attachment, attempts: Attempts
) -> Cost:
    """The cost as planned, and as measured by clock and counters."""

    def again() -> AbstractContextManager[Attachment]:
        return attach(inputs.loaded.model, setting.recipe)

    text = round(sum(answer.text for answer in answers) / len(answers))
    batches, turns = setting.timed_batches, setting.timed_in_turns
    planned = counted(attached.plan, attached.eviction, text, inputs.loaded.dtype)
    times = attempts.result("times", lambda: timed(inputs.loaded, inputs, batches, again, in_turns=turns), Cost())
    watch = attempts.result("costs", lambda: watched(inputs, again), Cost()) if batches else Cost()
    return joined(WatchedCost if batches else Cost, planned, times, watch, Cost(batch=inputs.batch))


def observer(name: str) -> Any:
    """A new instance of the installed observer ``name``."""
    return built(only("observers", name, installed("observers")))
