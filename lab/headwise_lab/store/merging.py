"""Several records as one record, whose numbers are the mean or median of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from headwise_lab.schema.json_object import JsonObject, own_fields
from headwise_lab.schema.json_schema import is_number, structured

P = TypeVar("P", bound=JsonObject)
Middle = Callable[[list[float]], float]


def merged(kind: type[P], parts: Sequence[P | None], middle_of: Middle) -> P:
    """For every key ``middle_of`` all numbers, or else the last value; also for keys that are no field of ``kind``."""
    found = [part.to_json() for part in parts if part is not None]
    last = {key: value for part in found for key, value in part.items()}
    numbers = {key: [value for part in found if is_number(value := part.get(key))] for key in last}
    return structured(last | {key: middle_of(values) for key, values in numbers.items() if values}, kind)


def joined(kind: type[P], *parts: P) -> P:
    """One object with the fields of several, each of which has values for other fields; the last value wins."""
    names = [field.name for field in own_fields(kind)]
    known = {name: value for part in parts for name in names if (value := getattr(part, name)) is not None}
    return kind(**known)


def middle(values: Sequence[float | None], middle_of: Middle) -> float | None:
    """``middle_of`` those values that are not None; None where there is none."""
    known = [value for value in values if value is not None]
    return middle_of(known) if known else None
