"""Makes records of JSON, and checks them where they are written, imported and read.

A record with a result needs the fields that have no default in its class; fields that the class does not name may hold
anything. Records of trials that failed or could not be run have ``error`` or ``refused`` instead of a result.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeGuard

from headwise.errors import DataError
from headwise.reading import shown
from headwise_lab.schema.json_object import Json
from headwise_lab.schema.json_schema import structured, what_is_wrong
from headwise_lab.schema.wrong_values import WrongValue
from headwise_lab.store.record_types import NEEDLE, NeedleRecord, Record, Result, TextRecord, VisualRecord

SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,199}")
"""An id is part of a file's name."""

_TEXTS = ("error", "refused", "model", "benchmark", "command", "study")
"""Fields that reports show of records without a result; they have to be texts."""


def judged(data: Json, where: str) -> Record:
    """The record in a JSON object; a Result, unless the trial failed or could not be run.

    Raises DataError where a report cannot use it; the message names ``where``, the record, the field and the problem.
    """
    identity = _identity(data, f"{where}: ")
    if data.get("study") == NEEDLE:
        raise DataError(
            f"{where} is a record of `headwise needle`, which shows its own table and heat maps; give the output folder"
            " of run, ppl, ablate or demo"
        )
    _check_shown(data, where)
    try:
        return structured(data, _kind(data))
    except WrongValue as error:
        raise DataError(f"{where}: record {identity} has no usable {error.path!r}: {error.problem}") from error


def judge_written(data: Json) -> None:
    """Raise DataError where a record to be written has a field that readers could not use; fields may be missing."""
    identity = _identity(data, "")
    _check_shown(data, "the record")
    kind = _kind(data)
    found = None if kind in (NeedleRecord, Record) else what_is_wrong(data, kind, whole=False)
    if found:
        raise DataError(f"record {identity} cannot be written, for its {found[0]!r} could not be read: {found[1]}")


def record_of(data: Json) -> Record:
    """The record in a JSON object of ours; raises DataError where its id could not name a file."""
    _identity(data, "")
    found = as_far_as_it_goes(data)
    assert found is not None
    return found


def as_far_as_it_goes(data: Json) -> Record | None:
    """The record in a JSON object; where a field is wrong, a plain Record with the fields that can be used.

    None where its id could not name a file.
    """
    if not _is_safe(data.get("id")):
        return None
    try:
        return structured(data, _kind(data))
    except WrongValue:
        return structured(data, Record)


def last_of_each(records: Iterable[Record]) -> dict[str, Record]:
    """Id -> the last record with it, in the order of these last records."""
    found: dict[str, Record] = {}
    for record in records:
        found.pop(record.id, None)
        found[record.id] = record
    return found


def _kind(data: Json) -> type[Record]:
    """The class of a record."""
    if data.get("error") or data.get("refused"):
        return Record
    if data.get("study") == NEEDLE:
        return NeedleRecord
    return TextRecord if "benchmark" not in data and "text" in data else VisualRecord


def _identity(data: Json, where: str) -> str:
    identity = data.get("id")
    if not _is_safe(identity):
        raise DataError(f"{where}a record needs an id of letters and digits, not {shown(identity)}")
    return identity


def _is_safe(identity: object) -> TypeGuard[str]:
    return isinstance(identity, str) and SAFE_ID.fullmatch(identity) is not None


def _check_shown(data: Json, where: str) -> None:
    """Raise DataError for a wrong value among the fields that are shown of records without a result."""
    for key in _TEXTS:
        if not isinstance(data.get(key), str | None):
            raise DataError(f"{where}: {key} of record {data['id']} is no text: {shown(data[key])}")
    attempt = data.get("attempt", 1)
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        raise DataError(f"{where}: attempt of record {data['id']} is no whole number: {shown(attempt)}")
    if not issubclass(_kind(data), Result) and not _are_texts(data.get("strategies") or {}):
        raise DataError(f"{where}: strategies of record {data['id']} are not texts: {shown(data['strategies'])}")


def _are_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
