"""Records made of JSON, and judged where they are written, imported and read.

Of what a trial found, reports need the fields that have no default in their class; fields that are not named there may
hold anything. Records of trials that failed or could not be run say so instead.
"""

from __future__ import annotations

import re
from typing import TypeGuard

from headwise.errors import DataError
from headwise.reading import shown
from headwise_lab.schema.json_object import Json
from headwise_lab.schema.json_schema import structured, what_is_wrong
from headwise_lab.schema.wrong_values import WrongValue
from headwise_lab.store.record_types import NEEDLE, NeedleRecord, Record, Result, TextRecord, VisualRecord

SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,199}")
"""Ids become names of files."""

_TEXTS = ("error", "refused", "model", "benchmark", "command", "study")
"""Fields of attempts without a result that are shown, and so have to be texts."""


def judged(told: Json, where: str) -> Record:
    """The record in a JSON object, a Result where there is one.

    Raises DataError, which says ``where``, the record, the field and what is wanted, unless a report could use it.
    """
    identity = _identity(told, f"{where}: ")
    if told.get("study") == NEEDLE:
        raise DataError(
            f"{where} is a record of `headwise needle`, which shows its own table and heat maps; give the output folder"
            " of run, ppl, ablate or demo"
        )
    _judge_told(told, where)
    try:
        return structured(told, _kind(told))
    except WrongValue as error:
        raise DataError(f"{where}: record {identity} has no usable {error.path!r}: {error.problem}") from error


def judge_written(told: Json) -> None:
    """Raise DataError where a record of ours has a field that readers could not use; it may lack some."""
    identity = _identity(told, "")
    _judge_told(told, "the record")
    kind = _kind(told)
    found = None if kind in (NeedleRecord, Record) else what_is_wrong(told, kind, whole=False)
    if found:
        raise DataError(f"record {identity} cannot be written, for its {found[0]!r} could not be read: {found[1]}")


def record_of(told: Json) -> Record:
    """The record in a JSON object of ours; raises DataError where it has no id that could name a file."""
    _identity(told, "")
    found = as_far_as_it_goes(told)
    assert found is not None
    return found


def as_far_as_it_goes(told: Json) -> Record | None:
    """The record in a JSON object whatever is wrong with it; of one that is damaged, what a Record holds.

    None where it has no id that could name a file.
    """
    if not _is_safe(told.get("id")):
        return None
    try:
        return structured(told, _kind(told))
    except WrongValue:
        return structured(told, Record)


def _kind(told: Json) -> type[Record]:
    """The class of a record."""
    if told.get("error") or told.get("refused"):
        return Record
    if told.get("study") == NEEDLE:
        return NeedleRecord
    return TextRecord if "benchmark" not in told and "text" in told else VisualRecord


def _identity(told: Json, where: str) -> str:
    identity = told.get("id")
    if not _is_safe(identity):
        raise DataError(f"{where}a record needs an id of letters and digits, not {shown(identity)}")
    return identity


def _is_safe(identity: object) -> TypeGuard[str]:
    return isinstance(identity, str) and SAFE_ID.fullmatch(identity) is not None


def _judge_told(told: Json, where: str) -> None:
    """What records of trials without a result are read for."""
    for key in _TEXTS:
        if not isinstance(told.get(key), str | None):
            raise DataError(f"{where}: {key} of record {told['id']} is no text: {shown(told[key])}")
    attempt = told.get("attempt", 1)
    if not isinstance(attempt, int) or isinstance(attempt, bool):
        raise DataError(f"{where}: attempt of record {told['id']} is no whole number: {shown(attempt)}")
    if not issubclass(_kind(told), Result) and not _are_texts(told.get("strategies") or {}):
        raise DataError(f"{where}: strategies of record {told['id']} are not texts: {shown(told['strategies'])}")


def _are_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
