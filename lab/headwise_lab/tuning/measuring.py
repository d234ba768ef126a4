"""Points measured on the questions of some benchmarks: ordinary trials of the store, none of them run twice."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from headwise.errors import BudgetError, DataError, ModelError
from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.models.load import Loaded
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_types import Record, VisualRecord
from headwise_lab.trial.record import Setting, head_of_record, identity
from headwise_lab.trial.run import run_trial
from headwise_lab.tuning.questions import Part
from headwise_lab.tuning.searching import Value
from headwise_lab.tuning.space import Point

R = TypeVar("R", bound=Record)

STUDY = "tune"
COSTS = ("processed", "flops")
"""What a point may cost: visual tokens processed per layer, on average, or counted multiply-adds of a prefill."""


class PointError(RuntimeError):
    """A point failed on a benchmark before, or now; the store has the record."""


@attrs.frozen(eq=False, kw_only=True)
class Bench:
    """Where points are measured: a model, one part of every benchmark's questions, and the store that remembers.

    ``command``: the command line of the search, for records of questions that no other command asks.
    """

    loaded: Loaded
    store: Store
    part: str
    parts: Sequence[Part]
    inputs: Sequence[Inputs]
    data: str | Path | None = None
    command: str = ""
    timed_batches: int = 0
    advance: Callable[[int], None] = lambda _: None

    @classmethod
    def of(cls, loaded: Loaded, parts: Sequence[Part], batch: int, **rest: Any) -> Bench:
        """A bench with the inputs of its parts."""
        inputs = [Inputs(loaded, part.benchmark, part.questions, batch) for part in parts]
        for asked in inputs:
            asked.check()
        return cls(loaded=loaded, parts=parts, inputs=inputs, **rest)

    def measure(self, recipe: Recipe, *, retry: bool = False) -> list[VisualRecord]:
        """The records of a recipe on all benchmarks; those that the store has are not made again.

        Raises PointError, BudgetError, ModelError, or DataError, which would befall every recipe. ``retry``: what
        failed before is tried again.
        """
        return [self._one(recipe, part, inputs, retry) for part, inputs in zip(self.parts, self.inputs, strict=True)]

    def _one(self, recipe: Recipe, part: Part, inputs: Inputs, retry: bool) -> VisualRecord:
        setting = Setting(
            recipe=recipe,
            seed=part.seed,
            limit=part.limit,
            study=STUDY,
            data=self.data,
            timed_batches=self.timed_batches,
        )
        name = identity(setting, inputs)
        before = self.store.records.get(name)
        if self.store.done(name) and isinstance(before, VisualRecord):
            self.advance(len(inputs))
            return before
        if before is not None and not before.has_result and not retry:
            if before.refused:
                raise ModelError(before.refused)
            raise PointError(str(before.error))
        attempt = (before.attempt or 0) + 1 if before is not None else 1
        return self._run(setting, part, inputs, attempt)

    def _run(self, setting: Setting, part: Part, inputs: Inputs, attempt: int) -> VisualRecord:
        try:
            record, outcomes = run_trial(setting, inputs, self.store.folder, self.advance)
        except DataError:
            raise
        except (BudgetError, ModelError) as error:  # the model lacks what the method looks at
            head = self._labelled(head_of_record(setting, inputs), part, attempt)
            self.store.add(attrs.evolve(head, refused=str(error)))
            raise
        except Exception as error:  # whatever a third party's strategy raises is the failure of this point alone
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            head = self._labelled(head_of_record(setting, inputs), part, attempt)
            self.store.add(attrs.evolve(head, error=reason))
            raise PointError(reason) from error
        record = self._labelled(record, part, attempt)
        self.store.add(record, outcomes)
        return record

    def _labelled(self, record: R, part: Part, attempt: int) -> R:
        """The record with its part among the settings, so that reports never pool or pair the two parts."""
        command = record.command if part.again or not self.command else self.command
        settings = {**(record.settings or {}), "questions": self.part}
        return attrs.evolve(record, settings=settings, command=command, part=self.part, attempt=attempt)


@attrs.frozen(eq=False)
class Judge:
    """What points are worth on a bench, beside the unpruned model on the same questions."""

    bench: Bench
    cost: str
    unpruned: Sequence[VisualRecord]

    @classmethod
    def of(cls, bench: Bench, cost: str) -> Judge:
        """Measure the unpruned model; raises DataError where it scores nothing, for then no share of it is defined."""
        records = bench.measure(Recipe.of(), retry=True)
        for record in records:
            if not record.metric.value > 0:
                raise DataError(
                    f"the unpruned model scores {record.metric.value:g} on the {bench.part} questions of"
                    f" {record.benchmark}, so nothing can be measured against it; leave that benchmark out"
                )
        if cost == "flops":
            for record in records:
                flops(record)
        return cls(bench, cost, records)

    def value(self, point: Point) -> Value:
        """Accuracy in per cent of the unpruned model's, the mean over benchmarks, and what the point costs."""
        return self.worth(self.bench.measure(point.recipe))

    def worth(self, records: Sequence[VisualRecord]) -> Value:
        """The value of a point by its records."""
        pairs = zip(records, self.unpruned, strict=True)
        accuracy = statistics.fmean(100 * record.metric.value / full.metric.value for record, full in pairs)
        spent = [flops(record) if self.cost == "flops" else record.budget.processed or 0.0 for record in records]
        return Value(accuracy, math.fsum(spent) / len(spent), tuple(record.id for record in records))


def flops(record: VisualRecord) -> float:
    """Counted multiply-adds of a prefill per question; raises DataError where they were not counted."""
    counted = record.cost.flops_counted if record.cost else None
    if counted is None:
        raise DataError(f"record {record.id} has no counted FLOPs; search with --cost processed")
    return float(counted)
