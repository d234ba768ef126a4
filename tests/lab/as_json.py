"""What an output folder holds, as the JSON that its records and outcomes were made of."""

from __future__ import annotations

from pathlib import Path

from headwise_lab.report.trials import Trial
from headwise_lab.store.outcome_types import Outcome
from headwise_lab.store.record_schema import as_far_as_it_goes
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import read_outcomes, read_records


def json_records(folder: Path) -> tuple[list[dict], list[str]]:
    """The records of a folder, and the warnings about it."""
    records, warnings = read_records(folder)
    return [record.to_json() for record in records], warnings


def json_outcomes(folder: Path, identity: str) -> list[dict]:
    """The outcomes of a record."""
    return [outcome.to_json() for outcome in read_outcomes(folder, identity, Outcome)]


def record_of(told: dict) -> Record:
    """The record that a JSON object holds."""
    return as_far_as_it_goes(told)


def trial_from(told: dict, units: dict | None = None) -> Trial:
    """The trial of a record in JSON."""
    return Trial(as_far_as_it_goes(told), units)
