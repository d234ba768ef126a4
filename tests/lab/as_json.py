"""Records and outcomes as the JSON that they are made of and become: what tests write down and hold results against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwise_lab.schema.json_schema import structured
from headwise_lab.store.outcome_types import Outcome
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_schema import record_of
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import read_outcomes, read_records

Pair = tuple[dict, list[dict]]


def json_records(folder: Path) -> tuple[list[dict], list[str]]:
    """The records of a folder, and the warnings about it."""
    records, warnings = read_records(folder)
    return [record.to_json() for record in records], warnings


def json_outcomes(folder: Path, identity: str) -> list[dict]:
    """The outcomes of a record."""
    return [outcome.to_json() for outcome in read_outcomes(folder, identity, Outcome)]


def as_json(found: tuple[Record, Sequence[Outcome]]) -> Pair:
    """A record and its outcomes."""
    record, outcomes = found
    return record.to_json(), [outcome.to_json() for outcome in outcomes]


def typed(pair: Pair) -> tuple[Record, list[Outcome]]:
    """The same the other way round."""
    record, outcomes = pair
    return record_of(record), [structured(row, Outcome) for row in outcomes]


def add_json(store: Store, record: dict, outcomes: Sequence[dict] = ()) -> None:
    """Add a record and its outcomes to a store."""
    store.add(*typed((record, list(outcomes))))


def held(store: Store) -> dict[str, dict]:
    """The records of a store by id."""
    return {name: record.to_json() for name, record in store.records.items()}


def has_result(told: dict) -> bool:
    """Whether an attempt, as its line says, was run to its end."""
    return record_of(told).has_result
