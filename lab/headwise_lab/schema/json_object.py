"""Objects in JSON as attrs classes that lose nothing: what a class has no field for is kept, and written again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs

Json = Mapping[str, object]
"""A JSON object as it is read."""

LENIENT = {"lenient": True}
"""Metadata of a field of a strict class: a value that does not fit it is as good as none, and kept all the same."""


@attrs.frozen(kw_only=True)
class JsonObject:
    """What objects in JSON share: ``as_read`` is the object that this one was made from, empty where code made it.

    A ``lenient`` class takes its default for a value that does not fit a field; others are refused with such a value.
    ``nulls`` are fields that code writes as null where nothing is known; other fields are left out then.
    """

    lenient: ClassVar[bool] = False
    nulls: ClassVar[frozenset[str]] = frozenset()

    as_read: dict[str, object] = attrs.field(factory=dict, repr=False, eq=False)

    def to_json(self) -> dict[str, object]:
        """The object, its keys in the order they were read in, and then in that of the fields.

        A field that has its default says nothing new: there, what was read stays.
        """
        made = not self.as_read
        own: dict[str, object] = {}
        for field in own_fields(type(self)):
            value = getattr(self, field.name)
            if value != default_of(field) or (made and (value is not None or field.name in self.nulls)):
                own[field.name] = _plain(value)
        return {**self.as_read, **own}


def own_fields(kind: type[JsonObject]) -> list[attrs.Attribute[object]]:
    """The fields of a class that stand in the JSON."""
    return [field for field in attrs.fields(attrs.resolve_types(kind)) if field.name != "as_read"]


def default_of(field: attrs.Attribute[object]) -> object:
    """What a field is where nothing is said; ``attrs.NOTHING`` where it has to be."""
    factory = getattr(field.default, "factory", None)
    return field.default if factory is None else factory()


def _plain(value: object) -> object:
    """A value of a field as JSON has it."""
    if isinstance(value, JsonObject):
        return value.to_json()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
