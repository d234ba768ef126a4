"""Measures points on the questions of some benchmarks: they are ordinary trials of the store, and none is run twice."""

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
from headwise_lab.sweeps.executor import last_line
from headwise_lab.trial.record import Setting, head_of_record, identity
from headwise_lab.trial.run import run_trial
from headwise_lab.tuning.questions import Part
from headwise_lab.tuning.searching import Value
from headwise_lab.tuning.space import SearchPoint

R = TypeVar("R", bound=Record)

STUDY = "tune"
COSTS = ("processed", "flops")
"""The two kinds of cost: visual tokens processed per layer, on average, or counted multiply-adds of a prefill."""


class PointError(RuntimeError):
    """A point has failed on a benchmark, now or in an earlier run; the store has the record."""


@attrs.frozen(eq=False, kw_only=True)
class Bench:
    """Where points are measured: a model, one part of every benchmark's questions, and the store for the records.

    ``command``: the command line of the search; it stands in records of questions that no other command asks.
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
        """The records of a recipe on all benchmarks; what the store has is not run again.

        Raises PointError, BudgetError or ModelError, or a DataError that every other recipe would raise, too.
        ``retry``: also run what failed before.
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
        except (BudgetError, ModelError) as error:  # the model lacks something that the method reads
            head = self._labelled(head_of_record(setting, inputs), part, attempt)
            self.store.add(attrs.evolve(head, refused=str(error)))
            raise
        except Exception as error:  # whatever a strategy raises is the failure of this point alone
            reason = last_line(error)
            head = self._labelled(head_of_record(setting, inputs), part, attempt)
            self.store.add(attrs.evolve(head, error=reason))
            raise PointError(reason) from error
        record = self._labelled(record, part, attempt)
        self.store.add(record, outcomes)
        return record

    def _labelled(self, record: R, part: Part, attempt: int) -> R:
        """The record with its part of the questions in its settings, so that reports never pool or pair both parts."""
        command = record.command if part.again or not self.command else self.command
        settings = {**(record.settings or {}), "questions": self.part}
        return attrs.evolve(record, settings=settings, command=command, part=self.part, attempt=attempt)


@attrs.frozen(eq=False)
class PointEvaluator:
    """The values of points on a bench, relative to the unpruned model on the same questions."""

    bench: Bench
    cost: str
    unpruned: Sequence[VisualRecord]

    @classmethod
    def of(cls, bench: Bench, cost: str) -> PointEvaluator:
        """Measure the unpruned model; raises DataError where its score is 0, because no share of 0 is defined."""
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

    def value(self, point: SearchPoint) -> Value:
        """The accuracy in per cent of the unpruned model's, averaged over benchmarks, and the cost of a point."""
        return self.worth(self.bench.measure(point.recipe))

    def worth(self, records: Sequence[VisualRecord]) -> Value:
        """The value of a point with these records."""
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
