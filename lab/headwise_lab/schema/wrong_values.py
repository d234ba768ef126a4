"""Wrong values in files: finds in cattrs' errors which value is wrong, and what is allowed there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from cattrs import BaseValidationError
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote

from headwise.hints import did_you_mean


class WrongValue(ValueError):  # noqa: N818 - the code that reads the file turns it into an error that names the file
    """A value that a file cannot have: its dotted path within its table, and the problem."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def keys_of(kind: Any) -> list[str]:
    """Names of the fields of an attrs class."""
    return [field.name for field in attrs.fields(kind)]


def first_problem(error: BaseException) -> tuple[str, str]:
    """Dotted path and problem of the first wrong value in an error."""
    if isinstance(error, BaseValidationError):
        inner = error.exceptions[0]
        path, problem = first_problem(inner)
        return _joined(_step(inner), path), problem
    if isinstance(error, ForbiddenExtraKeysError):
        return _unknown_key(sorted(error.extra_fields)[0], keys_of(error.cl))
    if isinstance(error, WrongValue):
        return error.path, error.problem
    return "", " ".join(str(error).split())


def _unknown_key(key: str, known: Iterable[str]) -> tuple[str, str]:
    listed = list(known)
    return key, f"there is no such key{did_you_mean(key, listed) or ';'} allowed: {', '.join(listed)}"


def _step(error: BaseException) -> str:
    """The key, or the index of the item, that cattrs was reading."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            return note.name
        if isinstance(note, IterableValidationNote):
            return f"[{note.index}]"
    return ""


def _joined(first: str, rest: str) -> str:
    return f"{first}{rest}" if not (first and rest) or rest.startswith("[") else f"{first}.{rest}"
