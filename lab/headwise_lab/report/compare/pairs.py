"""Comparing two output folders, or two single trials: which trials match, and the paired difference of each pair.

Trials match if they were asked to do the same. All else in which they differ (versions, dtype, the strategies where
trials are matched only by budget) is listed beside the figures. Trials with different questions or weights are
compared only where the user allows it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.report.compare.sides import BY, Key, Side, apart, fields, grouped, key_of, questions
from headwise_lab.report.trials import Trial, benchmark_of, load_units
from headwise_lab.stats.blocks import in_blocks
from headwise_lab.stats.differences import Difference, paired
from headwise_lab.stats.means import mean_and_error
from headwise_lab.stats.rule import QUESTION, block_unit, corrected
from headwise_lab.store.outcome_types import TokenOutcome
from headwise_lab.store.record_types import Result, TextRecord, VisualRecord
from headwise_lab.store.records import read_outcomes


@attrs.frozen(eq=False)
class Pair:
    """Trials that were asked to do the same, one per seed on each side, and the difference right - left.

    ``key``: the fields by which they match. ``apart``: the other fields in which they differ, field -> (left, right).
    ``records``: those of the left and of the right side. ``left``, ``right``: mean and standard error over the units
    that both have; ``unit`` says what a unit is. The difference is corrected over the whole table.
    """

    key: Mapping[str, str]
    records: tuple[tuple[Result, ...], ...]
    metric: str
    unit: str
    apart: Mapping[str, tuple[str, str]]
    left: tuple[float, float]
    right: tuple[float, float]
    difference: Difference

    @property
    def ids(self) -> tuple[tuple[str, ...], ...]:
        """Ids of the records of both sides."""
        return tuple(tuple(record.id for record in side) for side in self.records)

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference``: the right side against the left."""
        return self.difference.verdict


def side_by_side(
    left: Side, right: Side, by: Sequence[str] = BY, *, allow_different: bool = False
) -> tuple[list[Pair], list[str]]:
    """All pairs in the order of the left side, and warnings about trials that match none.

    Raises DataError where nothing matches or a match is ambiguous; and where matched trials have different questions or
    weights, unless ``allow_different``. With it, only questions that are equal on both sides are compared.
    """
    by = ("benchmark",) if left.single and right.single else by
    ours, theirs = grouped(left, by), grouped(right, by)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise DataError(_nothing(left, right, by))
    warnings = [*left.warnings, *right.warnings, *_alone(left, ours, theirs), *_alone(right, theirs, ours)]
    pairs = []
    for key in shared:
        couples = _couples(ours[key], theirs[key], allow_different=allow_different)
        pair, told = _pair(key, couples, left.folder, right.folder)
        warnings += told
        pairs += [pair] if pair else []
    if not pairs:
        raise DataError(f"{left.called} and {right.called} have no question in common to compare; {warnings[-1]}")
    adjusted = corrected([pair.difference for pair in pairs])
    judged = zip(pairs, adjusted, strict=True)
    return [attrs.evolve(pair, difference=found) for pair, found in judged if found is not None], warnings


def _nothing(left: Side, right: Side, by: Sequence[str]) -> str:
    ours, theirs = fields(left.records[0]), fields(right.records[0])
    words = [word for word in by if key_of(left.records[0], [word]) != key_of(right.records[0], [word])]
    kept = [word for word in by if word not in words]
    if ours.get("benchmark") != theirs.get("benchmark") or not kept:
        return f"no trial of {left.called} matches one of {right.called} by {', '.join(by)}"
    return (
        f"no trial of {left.called} matches one of {right.called} by {', '.join(by)}: the first of each differ in"
        f" {', '.join(words)}; match by less, such as --by {','.join(kept)}"
    )


def _alone(side: Side, ours: Mapping[Key, Sequence[Result]], theirs: Mapping[Key, Sequence[Result]]) -> list[str]:
    count = sum(len(group) for key, group in ours.items() if key not in theirs)
    return [f"{count} of {len(side.records)} trials of {side.called} match none of the other side."] if count else []


Couple = tuple[Result, Result]


def _couples(ours: Sequence[Result], theirs: Sequence[Result], *, allow_different: bool) -> list[Couple]:
    """Pairs of records with the same questions; where there are none and it is allowed, with the same seed.

    Raises DataError for different questions or weights, unless they are allowed.
    """
    same = [(one, other) for one in ours for other in theirs if questions(one) == questions(other)]
    if not same and not allow_different:
        raise DataError(_different("questions", ours[0], theirs[0]))
    for one, other in same:
        if one.weights != other.weights and not allow_different:
            raise DataError(_different("weights", one, other))
    return same or [(one, other) for one in ours for other in theirs if one.seed == other.seed]


def _different(what: str, one: Result, other: Result) -> str:
    ours, theirs = (fields(record).get(what, "unknown") for record in (one, other))
    return (
        f"trials {one.id} and {other.id} have different {what} ({ours} and {theirs}); compare trials with the"
        " same, or give --allow-different to compare them on the questions they share"
    )


def _pair(key: Key, couples: Sequence[Couple], left: Path, right: Path) -> tuple[Pair | None, list[str]]:
    """The pair of one key, or None; and warnings. Questions of different couples are different units."""
    ours: dict[Any, float] = {}
    theirs: dict[Any, float] = {}
    warnings: list[str] = []
    tokens = 0
    for number, couple in enumerate(couples):
        shared, told = _shared(couple, left, right)
        warnings += told
        tokens = max(tokens, len(shared))
        cut = in_blocks if isinstance(couple[0], TextRecord) else dict
        for place, side in enumerate((ours, theirs)):
            side |= {(number, unit): score for unit, score in cut({k: v[place] for k, v in shared.items()}).items()}
    found = paired(theirs, ours, lower_is_better=any(isinstance(one, TextRecord) for one, _ in couples))
    if found is None:
        where = " ".join(f"{name}={value}" for name, value in key)
        return None, [*warnings, f"No question in common at {where}."]
    first, other = couples[0]
    return Pair(
        key=dict(key),
        records=tuple(zip(*couples, strict=True)),
        metric="loss in nats" if isinstance(first, TextRecord) else first.metric.name or "score",
        unit=block_unit(tokens) if isinstance(first, TextRecord) else QUESTION,
        apart={name: values for name, values in apart(first, other).items() if name not in dict(key)},
        left=mean_and_error(list(ours.values())),
        right=mean_and_error(list(theirs.values())),
        difference=found,
    ), warnings


def _shared(couple: Couple, left: Path, right: Path) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Question or token -> (left, right) score, where both were asked the same; and warnings."""
    one, other = couple
    (ours, said), (theirs, also) = _units(left, one), _units(right, other)
    warnings = [warning for warning in (said, also) if warning]
    if not (ours and theirs):
        return {}, warnings
    equal = _equally_asked((left, one), (right, other), ours)
    return {unit: (ours[unit], theirs[unit]) for unit in ours if unit in theirs and unit in equal}, warnings


def _units(folder: Path, record: Result) -> tuple[Mapping[str, float], str | None]:
    """Unit -> score of a trial, empty where its outcomes are missing; and a warning, if any."""
    if isinstance(record, TextRecord):
        try:
            outcomes = read_outcomes(folder, record.id, TokenOutcome)
        except DataError as error:
            return {}, f"Record {record.id} is compared with nothing: {error}."
        return {outcome.id: float(outcome.score) for outcome in outcomes}, None
    assert isinstance(record, VisualRecord)
    trial = Trial(record)
    warning = load_units(trial, folder, benchmark_of(trial.benchmark))
    return trial.units or {}, warning


def _equally_asked(left: tuple[Path, Result], right: tuple[Path, Result], units: Container[str]) -> Container[str]:
    """The units that ask the same on both sides: all where the digests are equal, else those with equal texts."""
    if questions(left[1]) == questions(right[1]):
        return units
    if isinstance(left[1], TextRecord):
        return ()  # a token is named by its position only, which means nothing in another text
    ours, theirs = (_asked(folder, record) for folder, record in (left, right))
    return {unit for unit, asked in ours.items() if theirs.get(unit) == asked}


def _asked(folder: Path, record: Result) -> dict[str, list[tuple[object, ...]]]:
    """Unit -> (question, text, accepted answers) of its outcomes, sorted."""
    asked: dict[str, list[tuple[object, ...]]] = {}
    for outcome in read_outcomes(folder, record.id):
        asked.setdefault(outcome.unit_or_id, []).append((outcome.id, outcome.question, outcome.answers))
    return {unit: sorted(lines, key=repr) for unit, lines in asked.items()}
