"""Several records as one: figure by figure the middle of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from headwise_lab.schema.json_object import JsonObject, own_fields
from headwise_lab.schema.json_schema import is_number, structured

P = TypeVar("P", bound=JsonObject)
Middle = Callable[[list[float]], float]


def merged(kind: type[P], parts: Sequence[P | None], middle_of: Middle) -> P:
    """Key by key the middle of all numbers, those that this version has no field for included; else the last value."""
    found = [part.to_json() for part in parts if part is not None]
    told = {key: value for part in found for key, value in part.items()}
    numbers = {key: [value for part in found if is_number(value := part.get(key))] for key in told}
    return structured(told | {key: middle_of(values) for key, values in numbers.items() if values}, kind)


def joined(kind: type[P], *parts: P) -> P:
    """Objects of one class that say different things, as one."""
    names = [field.name for field in own_fields(kind)]
    known = {name: value for part in parts for name in names if (value := getattr(part, name)) is not None}
    return kind(**known)


def middle(values: Sequence[float | None], middle_of: Middle) -> float | None:
    """The middle of the numbers there are."""
    known = [value for value in values if value is not None]
    return middle_of(known) if known else None
