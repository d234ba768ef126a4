"""What follows from the confirmation: how optimistic the search was, which points stay on the front, and which differ
from FastV.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from headwise_lab.report.trials import Trial, benchmark_of, load_units
from headwise_lab.stats.differences import Difference, paired
from headwise_lab.stats.rule import corrected
from headwise_lab.store.record_types import Record, VisualRecord
from headwise_lab.tuning.confirming import Again, Confirmed
from headwise_lab.tuning.fronts import beats
from headwise_lab.tuning.measuring import PointEvaluator
from headwise_lab.tuning.searching import Value

Units = Mapping[tuple[str, str], float]
"""(benchmark, unit) -> score, weighted so that the mean of all scores is the accuracy of a point."""


@attrs.frozen
class Accuracy:
    """An accuracy in per cent of the unpruned model's on the same questions, with standard error and interval."""

    value: float
    se: float
    low: float
    high: float


@attrs.frozen(eq=False)
class JudgedPoint:
    """A point of the front: its accuracy in the search and on the held-out questions, and its difference to FastV.

    ``held_out`` and the fields after it are None where they could not be measured. The differences of all points to
    FastV are corrected together. ``beaten_by``: a point or reference that beats this one on the held-out questions.
    """

    confirmed: Confirmed
    search: Accuracy
    held_out: Accuracy | None = None
    fastv: Accuracy | None = None
    random: Accuracy | None = None
    to_fastv: Difference | None = None
    beaten_by: str | None = None

    @property
    def optimism(self) -> float | None:
        """How much higher the accuracy was in the search."""
        return None if self.held_out is None else self.search.value - self.held_out.value

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference`` to FastV at an equal average; empty where it is not compared."""
        return self.to_fastv.verdict if self.to_fastv else ""


def judge(
    confirmed: Sequence[Confirmed], searched: PointEvaluator, held: PointEvaluator, folder: Path
) -> list[JudgedPoint]:
    """Judge all points of a front together, because they are one family of comparisons."""
    judged = [_one(point, searched, held, folder) for point in confirmed]
    adjusted = corrected([one.to_fastv for one in judged])
    judged = [attrs.evolve(one, to_fastv=found) for one, found in zip(judged, adjusted, strict=True)]
    return [attrs.evolve(one, beaten_by=_beaten_by(one, judged)) for one in judged]


def optimism(judged: Sequence[JudgedPoint]) -> float | None:
    """How much higher accuracies were in the search, on average; None where nothing was confirmed."""
    found = [one.optimism for one in judged if one.optimism is not None]
    return statistics.fmean(found) if found else None


def units(value: Value, bench: PointEvaluator, folder: Path) -> Units:
    """The units of a point's records."""
    found: dict[tuple[str, str], float] = {}
    for name, full in zip(value.records, bench.unpruned, strict=True):
        own = _scores(bench.bench.store.records[name], folder)
        weight = 100 / (full.metric.value * len(own) * len(bench.unpruned))
        found |= {(full.benchmark, unit): score * weight for unit, score in own.items()}
    return {unit: score * len(found) for unit, score in found.items()}


def accuracy(scores: Units) -> Accuracy:
    """The mean of the units, its error and its interval."""
    found = paired(scores, dict.fromkeys(scores, 0.0))
    assert found is not None  # there is at least one unit
    return Accuracy(found.value, found.se, found.low, found.high)


def _scores(record: Record, folder: Path) -> Mapping[str, float]:
    """Unit -> score of a record, in the benchmark's scale."""
    assert isinstance(record, VisualRecord)
    trial = Trial(record)
    load_units(trial, folder, benchmark_of(record.benchmark))
    return trial.units or {}


def _one(point: Confirmed, searched: PointEvaluator, held: PointEvaluator, folder: Path) -> JudgedPoint:
    judged = JudgedPoint(point, accuracy(units(point.found.value, searched, folder)))
    if point.again.value is None:
        return judged
    ours = units(point.again.value, held, folder)
    fastv, random = (_units_of(reference, held, folder) for reference in (point.fastv, point.random))
    return attrs.evolve(
        judged,
        held_out=accuracy(ours),
        fastv=accuracy(fastv) if fastv else None,
        random=accuracy(random) if random else None,
        to_fastv=paired(ours, fastv) if fastv and not point.is_reference else None,
    )


def _units_of(reference: Again | None, held: PointEvaluator, folder: Path) -> Units | None:
    """The units of a reference; None where it was not measured."""
    return None if reference is None or reference.value is None else units(reference.value, held, folder)


def _beaten_by(one: JudgedPoint, judged: Sequence[JudgedPoint]) -> str | None:
    """The first that beats a point on the held-out questions: another point of the front, or a reference."""
    ours = one.confirmed.again.value
    if ours is None:
        return None
    others = [(f"trial {other.confirmed.found.number}", other.confirmed.again.value) for other in judged]
    for name in ("fastv", "random"):
        others += [(name, reference.value) for each in judged if (reference := getattr(each.confirmed, name))]
    pair = (ours.accuracy, ours.cost)
    better = [name for name, value in others if value is not None and beats((value.accuracy, value.cost), pair)]
    return better[0] if better else None
