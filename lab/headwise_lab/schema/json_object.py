"""JSON objects as attrs classes. Keys for which a class has no field are kept, and written again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs

Json = Mapping[str, object]
"""A JSON object as json.loads returns it."""

LENIENT = {"lenient": True}
"""Metadata of a field of a strict class: a value of a wrong type counts as missing, and is kept in ``as_read``."""


@attrs.frozen(kw_only=True)
class JsonObject:
    """The base class of JSON objects. ``as_read``: the JSON that this object was read from; empty if code made it.

    ``lenient``: in such a class, a field with a value of a wrong type gets its default; in others this is an error.
    ``nulls``: the fields that are written as null where they are None; other fields are left out then.
    """

    lenient: ClassVar[bool] = False
    nulls: ClassVar[frozenset[str]] = frozenset()

    as_read: dict[str, object] = attrs.field(factory=dict, repr=False, eq=False)

    def to_json(self) -> dict[str, object]:
        """The object as JSON: first the keys that were read, in their order, then the other fields.

        Where a field has its default, the value that was read stays.
        """
        made = not self.as_read
        own: dict[str, object] = {}
        for field in own_fields(type(self)):
            value = getattr(self, field.name)
            if value != default_of(field) or (made and (value is not None or field.name in self.nulls)):
                own[field.name] = _plain(value)
        return {**self.as_read, **own}


def own_fields(kind: type[JsonObject]) -> list[attrs.Attribute[object]]:
    """The fields of a class that are written as JSON."""
    return [field for field in attrs.fields(attrs.resolve_types(kind)) if field.name != "as_read"]


def default_of(field: attrs.Attribute[object]) -> object:
    """The default of a field; ``attrs.NOTHING`` where the field is required."""
    factory = getattr(field.default, "factory", None)
    return field.default if factory is None else factory()


def _plain(value: object) -> object:
    """A field's value as JSON."""
    if isinstance(value, JsonObject):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
