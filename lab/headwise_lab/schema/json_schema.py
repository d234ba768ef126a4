"""JSON from outside held against attrs classes: what is not as they say is named, and nothing is taken for another.

Fields that a class does not name may hold anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs
from cattrs import BaseValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from headwise_lab.schema.wrong_values import WrongValue, first_problem, keys_of

LARGEST = 1e100
"""Numbers beyond are no figures: sums and squares of them have no value."""


def what_is_wrong(told: Mapping[str, Any], kind: type, *, whole: bool = True) -> tuple[str, str] | None:
    """Dotted path and problem of the first field that is not as a class says; None where all are.

    Unless ``whole``, fields may be missing.
    """
    given = {key: told[key] for key in keys_of(kind) if key in told}
    try:
        if whole:
            _CONVERTER.structure(given, kind)
        else:
            for field in attrs.fields(attrs.resolve_types(kind)):
                if field.name in given:
                    _field(given[field.name], field)
    except (BaseValidationError, WrongValue) as error:
        return first_problem(error)
    return None


def _field(value: Any, field: attrs.Attribute[Any]) -> None:
    try:
        made = _CONVERTER.structure(value, field.type or object)
        if field.validator is not None:
            field.validator(None, field, made)
    except (BaseValidationError, WrongValue) as error:
        path, problem = first_problem(error)
        own = path if path.partition(".")[0] == field.name else f"{field.name}.{path}".rstrip(".")
        raise WrongValue(own, problem) from error


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def shown(value: Any) -> str:
    """A value as a sentence can hold it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _strict(kind: type, accepted: tuple[type, ...], wanted: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, accepted) or isinstance(value, bool):
            raise WrongValue("", f"{shown(value)} is not {wanted}")
        if kind is not str and not is_number(value):
            raise WrongValue("", f"{shown(value)} is not {wanted} that can be computed with")
        return value

    return structure


def _either(kind: Any) -> Callable[[Any, Any], Any]:
    """For ``str | None``, ``int | str | None`` and the like: the first kind that fits."""
    kinds = [one for one in get_args(kind) if one is not type(None)]

    def structure(value: Any, _: Any) -> Any:
        if value is None and len(kinds) < len(get_args(kind)):
            return None
        for one in kinds[:-1]:
            try:
                return _CONVERTER.structure(value, one)
            except (BaseValidationError, WrongValue):
                continue
        return _CONVERTER.structure(value, kinds[-1])

    return structure


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (UnionType, Union)


def _object(kind: Any) -> Callable[[Any, Any], Any]:
    """For ``dict[str, item]``."""
    item = get_args(kind)[1]

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise WrongValue("", f"{shown(value)} is not an object")
        if item is Any:
            return value
        return {key: _CONVERTER.structure(inner, item) for key, inner in value.items()}

    return structure


def _class(kind: Any) -> Callable[[Any, Any], Any]:
    made = make_dict_structure_fn(kind, _CONVERTER)

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise WrongValue("", f"{shown(value)} is not an object")
        return made(value, kind)

    return structure


def _is_dict(kind: Any) -> bool:
    return get_origin(kind) is dict


def _made() -> Converter:
    converter = Converter()
    converter.register_structure_hook(str, _strict(str, (str,), "a text"))
    converter.register_structure_hook(int, _strict(int, (int,), "a whole number"))
    converter.register_structure_hook(float, _strict(float, (int, float), "a number"))
    converter.register_structure_hook_factory(_is_union, _either)
    converter.register_structure_hook_factory(_is_dict, _object)
    converter.register_structure_hook_factory(attrs.has, _class)
    return converter


_CONVERTER = _made()
