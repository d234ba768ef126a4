"""Numbers that people and plugins give: whole ones and others, finite and of a size that counts something."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import attrs

from headwise.reading import shown

LARGEST = 2**31 - 1
"""No text has more tokens and no model more layers."""

LARGEST_SEED = 2**53
"""Whole numbers up to here are exact in every reader of JSON."""


def whole(value: object, largest: int = LARGEST) -> int:
    """A whole number within ±``largest``, given as one or as text; raises ValueError for anything else.

    What is no whole number is not rounded to one, and ``True`` counts nothing.
    """
    if isinstance(value, str):
        digits = value.strip().removeprefix("-").removeprefix("+")
        if not (digits.isascii() and digits.isdigit()):
            raise ValueError(f"{shown(value)} is not a whole number")
        if len(digits.lstrip("0")) > len(str(largest)):  # Python refuses to read thousands of digits
            raise ValueError(f"{shown(value)} is too large; give at most {largest}")
    elif isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{shown(value)} is not a whole number")
    _check_size(int(value), value, largest)
    return int(value)


def seed(value: object) -> int:
    """A whole number that starts random draws, within ±LARGEST_SEED."""
    return whole(value, LARGEST_SEED)


def number(value: object) -> float:
    """A finite number within ±LARGEST, given as one or as text; raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
        raise ValueError(f"{shown(value)} is not a number")
    try:
        found = float(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is not a number") from None
    except OverflowError:
        found = math.inf
    if math.isnan(found):
        raise ValueError(f"{shown(value)} is not a number")
    _check_size(found, value)
    return found


def whole_or_none(value: object) -> int | None:
    """A whole number as ``whole`` reads it, or None."""
    return None if value is None else whole(value)


def number_or_none(value: object) -> float | None:
    """A number as ``number`` reads it, or None."""
    return None if value is None else number(value)


def counted(least: int) -> Callable[[object, attrs.Attribute[int], int], None]:
    """Validator of a plan's field: a whole number in ``least``..LARGEST.

    The validator raises TypeError for what is no whole number, and ValueError for one out of range.
    """

    def check(_: object, attribute: attrs.Attribute[int], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{attribute.name}={shown(value)} is not a whole number")
        if not least <= int(value) <= LARGEST:
            raise ValueError(f"{attribute.name}={value} is impossible; give a whole number in {least}..{LARGEST}")

    return check


def _check_size(found: float, given: object, largest: int = LARGEST) -> None:
    if not -largest <= found <= largest:
        raise ValueError(f"{shown(given)} is too large; give at most {largest}")
