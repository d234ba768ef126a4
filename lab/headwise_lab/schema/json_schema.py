"""Makes attrs classes of JSON from outside. A wrong value is named in the error, and no value is converted.

Keys that a class does not name may have any value; a :class:`JsonObject` keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin

import attrs
from cattrs import BaseValidationError, Converter
from cattrs.gen import make_dict_structure_fn, override

from headwise.reading import shown
from headwise_lab.schema.json_object import LENIENT, JsonObject, default_of, own_fields
from headwise_lab.schema.wrong_values import WrongValue, first_problem, keys_of

LARGEST = 1e100
"""Larger numbers are refused, because their sums and squares overflow."""

T = TypeVar("T")
Hook = Callable[[object, object], object]
"""Called with JSON and a type: returns a value of this type, or raises WrongValue."""


def structured(data: Mapping[str, object], kind: type[T]) -> T:
    """A JSON object as an instance of a class; raises WrongValue, which names the first wrong field."""
    try:
        return _CONVERTER.structure(data, kind)
    except (BaseValidationError, WrongValue) as error:
        raise WrongValue(*first_problem(error)) from error


def what_is_wrong(data: Mapping[str, object], kind: type, *, whole: bool = True) -> tuple[str, str] | None:
    """Dotted path and problem of the first field that does not fit the class; None where all fit.

    With ``whole=False``, fields may be missing.
    """
    try:
        if whole:
            structured({key: data[key] for key in keys_of(kind) if key in data}, kind)
        else:
            for field in attrs.fields(attrs.resolve_types(kind)):
                if field.name in data and not field.metadata.get("lenient"):
                    _field(data[field.name], field)
    except WrongValue as error:
        return error.path, error.problem
    return None


def _field(value: object, field: attrs.Attribute[object]) -> None:
    try:
        made = _CONVERTER.structure(value, field.type or object)
        if field.validator is not None:
            field.validator(None, field, made)
    except (BaseValidationError, WrongValue) as error:
        path, problem = first_problem(error)
        own = path if path.partition(".")[0] == field.name else f"{field.name}.{path}".rstrip(".")
        raise WrongValue(own, problem) from error


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a number, not a boolean, and not beyond LARGEST."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _strict(kind: type, accepted: tuple[type, ...], wanted: str) -> Hook:
    def structure(value: object, _: object) -> object:
        if not isinstance(value, accepted) or isinstance(value, bool) is not (kind is bool):
            raise WrongValue("", f"{shown(value)} is not {wanted}")
        if kind in (int, float) and not is_number(value):
            raise WrongValue("", f"{shown(value)} is not {wanted} that can be computed with")
        return value

    return structure


def _either(kind: object) -> Hook:
    """A hook for unions such as ``int | str | None``: the first type that fits."""
    kinds = [one for one in get_args(kind) if one is not type(None)]

    def structure(value: object, _: object) -> object:
        if value is None and len(kinds) < len(get_args(kind)):
            return None
        for one in kinds[:-1]:
            try:
                return _CONVERTER.structure(value, one)
            except (BaseValidationError, WrongValue):
                continue
        return _CONVERTER.structure(value, kinds[-1])

    return structure


def _is(*origins: object) -> Callable[[object], bool]:
    return lambda kind: get_origin(kind) in origins


def _object(kind: object) -> Hook:
    """A hook for ``dict[str, item]``."""
    item = get_args(kind)[1]

    def structure(value: object, _: object) -> object:
        if not isinstance(value, dict):
            raise WrongValue("", f"{shown(value)} is not an object")
        if item in (Any, object):
            return value
        return {key: _CONVERTER.structure(inner, item) for key, inner in value.items()}

    return structure


def _list(kind: object) -> Hook:
    """A hook for ``list[item]``."""
    (item,) = get_args(kind)

    def structure(value: object, _: object) -> object:
        if not isinstance(value, list):
            raise WrongValue("", f"{shown(value)} is not a list")
        return [_CONVERTER.structure(inner, item) for inner in value]

    return structure


def _class(kind: type) -> Hook:
    own = issubclass(kind, JsonObject)
    lenient = [field for field in own_fields(kind) if _is_lenient(kind, field)] if own else []
    hooks: dict[str, Any] = {field.name: override(struct_hook=_lenient(field)) for field in lenient}
    made: Callable[[Mapping[str, Any], object], object] = make_dict_structure_fn(kind, _CONVERTER, **hooks)

    def structure(value: object, _: object) -> object:
        if not isinstance(value, Mapping):
            raise WrongValue("", f"{shown(value)} is not an object")
        return made({**value, "as_read": dict(value)} if own else value, kind)

    return structure


def _is_lenient(kind: type[JsonObject], field: attrs.Attribute[object]) -> bool:
    has_default = default_of(field) is not attrs.NOTHING
    return has_default and (kind.lenient or field.metadata == LENIENT)


def _lenient(field: attrs.Attribute[object]) -> Hook:
    """A hook that returns the value if it has the field's type, else the field's default."""

    def structure(value: object, _: object) -> object:
        try:
            return _CONVERTER.structure(value, field.type or object)
        except (BaseValidationError, WrongValue):
            return default_of(field)

    return structure


def _made() -> Converter:
    converter = Converter()
    converter.register_structure_hook(str, _strict(str, (str,), "a text"))
    converter.register_structure_hook(bool, _strict(bool, (bool,), "true or false"))
    converter.register_structure_hook(int, _strict(int, (int,), "a whole number"))
    converter.register_structure_hook(float, _strict(float, (int, float), "a number"))
    converter.register_structure_hook_factory(_is(UnionType, Union), _either)
    converter.register_structure_hook_factory(_is(dict), _object)
    converter.register_structure_hook_factory(_is(list), _list)
    converter.register_structure_hook_factory(attrs.has, _class)
    return converter


_CONVERTER = _made()
