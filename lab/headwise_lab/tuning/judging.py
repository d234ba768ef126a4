"""What the confirmation says: optimism of the search, points that stay on the front, and differences that are one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise_lab.report.trials import Trial, benchmark_of, load_units
from headwise_lab.schema.json_schema import structured
from headwise_lab.stats.differences import LEVEL, holm
from headwise_lab.stats.inference import Comparison, compare
from headwise_lab.store.record_types import VisualRecord
from headwise_lab.tuning.confirming import Confirmed
from headwise_lab.tuning.fronts import beats
from headwise_lab.tuning.measuring import Judge, Record
from headwise_lab.tuning.searching import Value

Units = Mapping[tuple[str, str], float]
"""Score of every (benchmark, unit), so weighted that their mean is the accuracy of a point."""


@attrs.frozen
class Figure:
    """An accuracy in per cent of the unpruned model's, with its standard error and the ends of its interval."""

    value: float
    se: float
    low: float
    high: float
    n: int


@attrs.frozen(eq=False)
class Judged:
    """A point of the front: what the search saw, what the held-out questions say, and what that is worth.

    ``held`` and all that follows is None where it could not be measured. ``adjusted`` holds Holm's probabilities of the
    differences to FastV and to random tokens, over all points of the front. ``beaten_by``: what is as cheap and more
    accurate on the held-out questions.
    """

    confirmed: Confirmed
    search: Figure
    held: Figure | None = None
    fastv: Figure | None = None
    random: Figure | None = None
    to_fastv: Comparison | None = None
    to_random: Comparison | None = None
    adjusted: tuple[float | None, float | None] = (None, None)
    beaten_by: str | None = None

    @property
    def optimism(self) -> float | None:
        """How much higher the search's figure was."""
        return None if self.held is None else self.search.value - self.held.value

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference`` against FastV at an equal average, after Holm's correction."""
        if self.to_fastv is None or self.adjusted[0] is None:
            return ""
        if self.adjusted[0] > LEVEL:
            return "no difference"
        return "better" if self.to_fastv.difference > 0 else "worse"


def judge(confirmed: Sequence[Confirmed], searched: Judge, held: Judge, folder: Path) -> list[Judged]:
    """Judge all points of a front together, for they are one family of comparisons."""
    judged = [_one(point, searched, held, folder) for point in confirmed]
    against = [_adjusted([getattr(one, name) for one in judged]) for name in ("to_fastv", "to_random")]
    judged = [attrs.evolve(one, adjusted=pair) for one, pair in zip(judged, zip(*against, strict=True), strict=True)]
    return [attrs.evolve(one, beaten_by=_beaten_by(one, judged)) for one in judged]


def optimism(judged: Sequence[Judged]) -> float | None:
    """How much higher the search's figures were on average; None where nothing was confirmed."""
    found = [one.optimism for one in judged if one.optimism is not None]
    return statistics.fmean(found) if found else None


def units(value: Value, bench: Judge, folder: Path) -> Units:
    """Units of a point's records."""
    found: dict[tuple[str, str], float] = {}
    for name, full in zip(value.records, bench.unpruned, strict=True):
        own = _scores(bench.bench.store.records[name], folder)
        weight = 100 / (full["metric"]["value"] * len(own) * len(bench.unpruned))
        found |= {(full["benchmark"], unit): score * weight for unit, score in own.items()}
    return {unit: score * len(found) for unit, score in found.items()}


def figure(scores: Units) -> Figure:
    """Mean of units, its error and its interval."""
    found = compare(scores, dict.fromkeys(scores, 0.0))
    assert found is not None  # there is at least one unit
    return Figure(found.difference, found.se, found.low, found.high, found.n)


def _scores(record: Record, folder: Path) -> Mapping[str, float]:
    """Unit -> score in the benchmark's scale."""
    trial = Trial(structured(record, VisualRecord))
    load_units(trial, folder, benchmark_of(str(record["benchmark"])))
    return trial.units or {}


def _one(point: Confirmed, searched: Judge, held: Judge, folder: Path) -> Judged:
    judged = Judged(point, figure(units(point.found.value, searched, folder)))
    if point.again.value is None:
        return judged
    ours = units(point.again.value, held, folder)
    told: dict[str, Any] = {"held": figure(ours)}
    for name in ("fastv", "random"):
        reference = getattr(point, name)
        if reference is not None and reference.value is not None:
            theirs = units(reference.value, held, folder)
            told[name] = figure(theirs)
            told[f"to_{name}"] = None if name == "fastv" and point.is_reference else compare(ours, theirs)
    return attrs.evolve(judged, **told)


def _adjusted(found: Sequence[Comparison | None]) -> list[float | None]:
    """Holm's probabilities of those that were compared."""
    corrected = iter(holm([one.probability for one in found if one is not None]))
    return [None if one is None else next(corrected) for one in found]


def _beaten_by(one: Judged, judged: Sequence[Judged]) -> str | None:
    """What beats a point on the held-out questions: another point of the front, or a reference."""
    ours = one.confirmed.again.value
    if ours is None:
        return None
    others = [(f"trial {other.confirmed.found.number}", other.confirmed.again.value) for other in judged]
    for name in ("fastv", "random"):
        others += [(name, reference.value) for each in judged if (reference := getattr(each.confirmed, name))]
    pair = (ours.accuracy, ours.cost)
    better = [name for name, value in others if value is not None and beats((value.accuracy, value.cost), pair)]
    return better[0] if better else None
