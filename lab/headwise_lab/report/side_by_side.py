"""Two output folders, or two single trials, side by side: what answers what, and the paired difference of each pair.

Trials are matched by what they were asked to do; where they differ in anything else (versions, dtype, the strategies
when matched by budget alone) is told beside the figures. Different questions or weights are not compared unasked.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.records import has_result, is_kv, read_outcomes, read_records
from headwise_lab.report.inference import Comparison, compare
from headwise_lab.report.statistics import LEVEL, holm, mean_and_error
from headwise_lab.report.trials import Trial, benchmark_of, load_units

BY = ("model", "benchmark", "strategies", "settings", "budget")
"""What trials are matched by unless told otherwise."""

GROUPS = ("strategies", "settings", "versions")
"""Words that stand for several fields of a record each."""


@attrs.frozen(eq=False)
class Side:
    """One side: its folder, what the user called it, and its finished trials; ``single`` where one was named."""

    folder: Path
    called: str
    records: tuple[Mapping[str, Any], ...]
    single: bool
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Side:
        """``DIR``, or ``DIR:ID`` for one trial by its id or the beginning of it; raises DataError for neither."""
        folder, identity = Path(text), ""
        if not folder.exists() and ":" in text:
            name, _, identity = text.rpartition(":")
            folder = Path(name)
        records, warnings = read_records(folder)
        done = tuple(record for record in records if has_result(record) and record["id"].startswith(identity))
        if not done or (identity and len(done) > 1):
            found = f"{len(done)} finished trials" if done else "no finished trial"
            what = f" whose id begins with {identity}" if identity else ""
            raise DataError(f"{folder} holds {found}{what}; give DIR, or DIR:ID with the id of one trial")
        return cls(folder, text, done, bool(identity), tuple(f"{folder}: {warning}" for warning in warnings))


@attrs.frozen(eq=False)
class Pair:
    """Trials that were asked to do the same, one per seed on each side, and the difference right - left.

    ``key`` is what they were matched by, ``apart`` the other fields they differ in, field -> (left, right). ``left``
    and ``right`` are means with standard errors over the shared units. ``adjusted`` is Holm's over the whole table.
    """

    key: Mapping[str, str]
    ids: tuple[tuple[str, ...], ...]
    metric: str
    lower_is_better: bool
    apart: Mapping[str, tuple[str, str]]
    left: tuple[float, float]
    right: tuple[float, float]
    comparison: Comparison
    adjusted: float = 1.0

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference``: the right side against the left, after Holm's correction."""
        if self.adjusted > LEVEL or self.comparison.difference == 0:
            return "no difference"
        return "better" if (self.comparison.difference > 0) != self.lower_is_better else "worse"


def side_by_side(
    left: Side, right: Side, by: Sequence[str] = BY, *, allow_different: bool = False
) -> tuple[list[Pair], list[str]]:
    """All pairs in the order of the left side, and warnings about trials without one.

    Raises DataError where nothing matches, where a match is ambiguous, or, unless ``allow_different``, where matched
    trials answered different questions or have different weights. Then only questions that are equal on both sides are
    compared.
    """
    by = ("benchmark",) if left.single and right.single else by
    ours, theirs = _grouped(left, by), _grouped(right, by)
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
    adjusted = holm([pair.comparison.probability for pair in pairs])
    return [attrs.evolve(pair, adjusted=value) for pair, value in zip(pairs, adjusted, strict=True)], warnings


def fields(record: Mapping[str, Any]) -> dict[str, str]:
    """What a trial was asked to do and where it ran, as flat texts: hooks, settings and versions by their own names."""
    text = record.get("text") or {}
    found = {
        "model": record.get("model"),
        "benchmark": text.get("name") if is_kv(record) else record.get("benchmark"),
        "budget": (record.get("budget") or {}).get("given"),
        **record["strategies"],
        **(record.get("settings") or {}),
        "recipe": record.get("recipe"),
        "profile": record.get("profile"),
        "seed": record.get("seed"),
        "limit": record.get("limit"),
        "questions": text.get("digest") if is_kv(record) else record.get("questions"),
        "weights": record.get("weights"),
        "dtype": record.get("dtype"),
        "attention": record.get("attention") if is_kv(record) else record.get("attention_implementation"),
        "device": (record.get("hardware") or {}).get("device"),
        **{f"{package} version": number for package, number in (record.get("versions") or {}).items()},
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def _key(record: Mapping[str, Any], by: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(field, value) of what trials are matched by; the three groups stand for all their fields."""
    told = fields(record)
    within = {
        "strategies": sorted(record["strategies"]),
        "settings": sorted(record.get("settings") or {}),
        "versions": [name for name in told if name.endswith(" version")],
    }
    names = [name for word in by for name in within.get(word, [word])]
    return tuple((name, told.get(name, "")) for name in dict.fromkeys(names))


def _grouped(side: Side, by: Sequence[str]) -> dict[Any, list[Mapping[str, Any]]]:
    """Key -> records, which ask different questions: one per seed."""
    known = {*GROUPS, *BY, *(name for record in side.records for name in fields(record))}
    unknown = [word for word in by if word not in known]
    if unknown:
        raise DataError(
            f"--by {unknown[0]!r} is nothing that trials of {side.called} have; choose from {_names(known)}"
        )
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for record in side.records:
        key = _key(record, by)
        group = groups.setdefault(key, [])
        for other in group:
            if record.get("seed") == other.get("seed") or _questions(record) == _questions(other):
                raise DataError(_ambiguous(side, key, other, record))
        group.append(record)
    return groups


def _questions(record: Mapping[str, Any]) -> str:
    """What was asked: the digest, or in records that have none the seed it was made from."""
    told = fields(record)
    return told.get("questions") or f"seed {told.get('seed')}"


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _ambiguous(side: Side, key: Any, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    apart = [name for name, (ours, theirs) in _apart(one, other).items() if ours != theirs]
    told = " ".join(f"{name}={value}" for name, value in key)
    return (
        f"{side.called} holds several trials of {told} that differ in {', '.join(apart) or 'nothing that is recorded'};"
        f" add that to --by, or name one trial as {side.folder}:{one['id']}"
    )


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Fields in which two records differ: field -> (of one, of the other)."""
    ours, theirs = fields(one), fields(other)
    both = {name: (ours.get(name, "-"), theirs.get(name, "-")) for name in {**ours, **theirs}}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def _nothing(left: Side, right: Side, by: Sequence[str]) -> str:
    ours, theirs = fields(left.records[0]), fields(right.records[0])
    words = [word for word in by if _key(left.records[0], [word]) != _key(right.records[0], [word])]
    kept = [word for word in by if word not in words]
    if ours.get("benchmark") != theirs.get("benchmark") or not kept:
        return f"no trial of {left.called} matches one of {right.called} by {', '.join(by)}"
    return (
        f"no trial of {left.called} matches one of {right.called} by {', '.join(by)}: the first of each differ in"
        f" {', '.join(words)}; match by less, such as --by {','.join(kept)}"
    )


def _alone(side: Side, ours: Mapping[Any, Sequence[Any]], theirs: Mapping[Any, Any]) -> list[str]:
    count = sum(len(group) for key, group in ours.items() if key not in theirs)
    return [f"{count} of {len(side.records)} trials of {side.called} match none of the other side."] if count else []


Couple = tuple[Mapping[str, Any], Mapping[str, Any]]


def _couples(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], *, allow_different: bool
) -> list[Couple]:
    """Records of both sides on the same questions; where there are none and it is allowed, of the same seed.

    Raises DataError for other questions or other weights, unless they are allowed.
    """
    same = [(one, other) for one in ours for other in theirs if _questions(one) == _questions(other)]
    if not same and not allow_different:
        raise DataError(_different("questions", ours[0], theirs[0]))
    for one, other in same:
        if one.get("weights") != other.get("weights") and not allow_different:
            raise DataError(_different("weights", one, other))
    return same or [(one, other) for one in ours for other in theirs if one.get("seed") == other.get("seed")]


def _different(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    ours, theirs = (fields(record).get(what, "unknown") for record in (one, other))
    return (
        f"trials {one['id']} and {other['id']} have different {what} ({ours} and {theirs}); compare trials with the"
        " same, or give --allow-different to compare them on the questions they share"
    )


def _pair(key: Any, couples: Sequence[Couple], left: Path, right: Path) -> tuple[Pair | None, list[str]]:
    """The pair of one key, or None and why; what different couples were asked are different units."""
    ours: dict[Any, float] = {}
    theirs: dict[Any, float] = {}
    warnings: list[str] = []
    for number, (one, other) in enumerate(couples):
        (units, said), (told, also) = _units(left, one), _units(right, other)
        warnings += [warning for warning in (said, also) if warning]
        if not (units and told):
            continue
        equal = _equally_asked((left, one), (right, other), units)
        shared = [unit for unit in units if unit in told and unit in equal]
        ours |= {(number, unit): units[unit] for unit in shared}
        theirs |= {(number, unit): told[unit] for unit in shared}
    comparison = compare(theirs, ours)
    if comparison is None:
        where = " ".join(f"{name}={value}" for name, value in key)
        return None, [*warnings, f"No question in common at {where}."]
    first, other = couples[0]
    return Pair(
        key=dict(key),
        ids=tuple(zip(*((str(one["id"]), str(two["id"])) for one, two in couples), strict=True)),
        metric="loss in nats" if is_kv(first) else str(first["metric"].get("name") or "score"),
        lower_is_better=is_kv(first),
        apart={name: values for name, values in _apart(first, other).items() if name not in dict(key)},
        left=mean_and_error(list(ours.values())),
        right=mean_and_error(list(theirs.values())),
        comparison=comparison,
    ), warnings


def _units(folder: Path, record: Mapping[str, Any]) -> tuple[Mapping[str, float], str | None]:
    """Unit -> score of a trial, nothing where its outcomes are missing, and what there is to warn about."""
    if is_kv(record):
        try:
            outcomes = read_outcomes(folder, record["id"])
        except DataError as error:
            return {}, f"Record {record['id']} is compared with nothing: {error}."
        return {str(outcome["id"]): float(outcome["score"]) for outcome in outcomes}, None
    trial = Trial(record)
    warning = load_units(trial, folder, benchmark_of(trial.benchmark))
    return trial.units or {}, warning


def _equally_asked(
    left: tuple[Path, Mapping[str, Any]], right: tuple[Path, Mapping[str, Any]], units: Container[str]
) -> Container[str]:
    """Those of our units that ask the same on both sides: all by equal digests, else those equal word by word."""
    if _questions(left[1]) == _questions(right[1]):
        return units
    if is_kv(left[1]):
        return ()  # tokens are known by their place alone, which says nothing about another text
    ours, theirs = (_asked(folder, record) for folder, record in (left, right))
    return {unit for unit, questions in ours.items() if theirs.get(unit) == questions}


def _asked(folder: Path, record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Unit -> (question, text, accepted answers) of its outcomes, in order."""
    asked: dict[str, list[Any]] = {}
    for outcome in read_outcomes(folder, record["id"]):
        told = (outcome["id"], outcome.get("question"), outcome.get("answers"))
        asked.setdefault(str(outcome.get("unit") or outcome["id"]), []).append(told)
    return {unit: sorted(questions, key=repr) for unit, questions in asked.items()}
