"""One side of a comparison: an output folder or a single trial of it, and the fields by which trials are matched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.store.locations import place
from headwise_lab.store.record_types import Record, Result, TextRecord
from headwise_lab.store.records import read_records

BY = ("model", "benchmark", "strategies", "settings", "budget")
"""The fields by which trials are matched by default."""

GROUPS = ("strategies", "settings", "versions")
"""Words that each stand for several fields of a record."""


Key = tuple[tuple[str, str], ...]
"""The (field, value) pairs by which trials are matched."""


@attrs.frozen(eq=False)
class Side:
    """One side: its folder, its name as the user gave it, and its finished trials. ``single``: one trial was named.

    ``failed``: the records of trials without a result; empty where one trial was named.
    """

    folder: Path
    called: str
    records: tuple[Result, ...]
    single: bool
    warnings: tuple[str, ...] = ()
    failed: tuple[Record, ...] = ()

    @classmethod
    def of(cls, text: str) -> Side:
        """The side ``DIR``, or ``DIR:ID`` with the (beginning of the) id of a trial; raises DataError for all else."""
        return cls.read(*named(text), text)

    @classmethod
    def read(cls, folder: Path, identity: str, called: str) -> Side:
        """The trials of a local folder whose id begins with ``identity``, which may be empty; raises as ``of`` does."""
        records, warnings = read_records(folder)
        done = tuple(record for record in records if isinstance(record, Result) and record.id.startswith(identity))
        if not done or (identity and len(done) > 1):
            found = f"{len(done)} finished trials" if done else "no finished trial"
            what = f" whose id begins with {identity}" if identity else ""
            raise DataError(f"{folder} holds {found}{what}; give DIR, or DIR:ID with the id of one trial")
        failed = () if identity else tuple(record for record in records if not record.has_result)
        return cls(folder, called, done, bool(identity), tuple(f"{folder}: {warning}" for warning in warnings), failed)


def named(text: str) -> tuple[Path, str]:
    """The folder or URL in ``DIR`` or ``DIR:ID``, and the id, which is empty for ``DIR``."""
    before, _, identity = text.rpartition(":")
    if "://" in text:
        return (place(text), "") if "/" in identity else (place(before), identity)
    return (Path(text), "") if Path(text).exists() or not before else (Path(before), identity)


def fields(record: Result) -> dict[str, str]:
    """Field -> text: what a trial was asked to do, and where. Hooks, settings and versions keep their own names."""
    asked, questions, attention = record.benchmark, record.questions, record.attention_implementation
    if isinstance(record, TextRecord):
        asked, questions, attention = record.text.name, record.text.digest, record.attention
    found = {
        "model": record.model,
        "benchmark": asked,
        "budget": record.budget and record.budget.given,
        **record.strategies,
        **(record.settings or {}),
        "recipe": record.recipe,
        "profile": record.profile,
        "seed": record.seed,
        "limit": record.limit,
        "questions": questions,
        "weights": record.weights,
        "dtype": record.dtype,
        "attention": attention,
        "device": record.hardware and record.hardware.device,
        **{f"{package} version": number for package, number in (record.versions or {}).items()},
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def key_of(record: Result, by: Sequence[str]) -> Key:
    """The (field, value) pairs by which trials are matched; a group stands for all its fields."""
    known = fields(record)
    within = {
        "strategies": sorted(record.strategies),
        "settings": sorted(record.settings or {}),
        "versions": [name for name in known if name.endswith(" version")],
    }
    names = [name for word in by for name in within.get(word, [word])]
    return tuple((name, known.get(name, "")) for name in dict.fromkeys(names))


def grouped(side: Side, by: Sequence[str]) -> dict[Key, list[Result]]:
    """Key -> its records, which differ in seed and questions.

    Raises DataError for an unknown field in ``by``, and where two records of a key have the same seed or questions.
    """
    known = {*GROUPS, *BY, *(name for record in side.records for name in fields(record))}
    unknown = [word for word in by if word not in known]
    if unknown:
        raise DataError(
            f"--by {unknown[0]!r} is nothing that trials of {side.called} have; choose from {_names(known)}"
        )
    groups: dict[Key, list[Result]] = {}
    for record in side.records:
        key = key_of(record, by)
        group = groups.setdefault(key, [])
        for other in group:
            if record.seed == other.seed or questions(record) == questions(other):
                raise DataError(_ambiguous(side, key, other, record))
        group.append(record)
    return groups


def questions(record: Result) -> str:
    """The digest of the questions; for records without one, the seed from which they were made."""
    known = fields(record)
    return known.get("questions") or f"seed {known.get('seed')}"


def _names(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _ambiguous(side: Side, key: Key, one: Result, other: Result) -> str:
    differ = ", ".join(apart(one, other)) or "nothing that is recorded"
    told = " ".join(f"{name}={value}" for name, value in key)
    return (
        f"{side.called} holds several trials of {told} that differ in {differ};"
        f" add that to --by, or name one trial as {side.folder}:{one.id}"
    )


def apart(one: Result, other: Result) -> dict[str, tuple[str, str]]:
    """The fields in which two records differ: field -> (value in one, value in the other)."""
    ours, theirs = fields(one), fields(other)
    both = {name: (ours.get(name, "-"), theirs.get(name, "-")) for name in {**ours, **theirs}}
    return {name: values for name, values in both.items() if values[0] != values[1]}
