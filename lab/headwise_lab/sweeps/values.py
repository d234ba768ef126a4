"""Validators for attrs classes whose values come from a file, and the checks that these validators use.

A check takes a value and returns a sentence about what is wrong with it, or None where the value is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs

from headwise.errors import HeadwiseError
from headwise.hints import did_you_mean
from headwise.recipe import named_recipe
from headwise.registry import Registry, installed
from headwise.text import StrategyText
from headwise_lab.benchmarks import names
from headwise_lab.report.studies import names as studies
from headwise_lab.report.studies import study_called
from headwise_lab.schema.wrong_values import WrongValue

T = TypeVar("T")
Items = TypeVar("Items", bound=tuple[object, ...])
Validator = Callable[[object, "attrs.Attribute[Any]", Any], None]

EVERY = "*"
"""In a list of names, this stands for all that are installed."""


def one_of(allowed: Iterable[str]) -> Validator:
    """A validator: the value is None or one of ``allowed``."""
    known = tuple(allowed)

    def check(_: object, attribute: attrs.Attribute[object], value: str | None) -> None:
        if value is not None and value not in known:
            hint = did_you_mean(value, known) or ";"
            raise WrongValue(attribute.name, f"{value!r} is not allowed{hint} allowed: {', '.join(known)}")

    return check


def each(check: Callable[[T], str | None]) -> Validator:
    """A validator: every item of the list passes ``check``, and none is given twice."""

    def check_all(_: object, attribute: attrs.Attribute[object], values: Iterable[T]) -> None:
        seen: list[T] = []
        for number, value in enumerate(values):
            problem = f"{value!r} is given twice; leave one out" if value in seen else check(value)
            if problem:
                raise WrongValue(f"{attribute.name}[{number}]", problem)
            seen.append(value)

    return check_all


def known_benchmark(name: str) -> str | None:
    """A check of a benchmark's name."""
    return _unknown(name.rpartition("/")[2], "benchmark", names())


def known_recipe(name: str) -> str | None:
    """A check of a recipe's name."""
    if name == EVERY:
        return None
    return _unknown(name, "recipe", installed("recipe")) or _problem(lambda: named_recipe(name))


def known_study(text: str) -> str | None:
    """What is wrong with the text of a study, ``NAME[:option=value,...]``."""
    problem = _problem(lambda: StrategyText.parse(text))
    return (
        problem or _unknown(StrategyText.parse(text).name, "study", studies()) or _problem(lambda: study_called(text))
    )


def known_strategy(hook: str) -> Callable[[str], str | None]:
    """A check of a strategy text of ``hook``, its options included."""

    def check(text: str) -> str | None:
        if text == EVERY:
            return None
        bare = text.removeprefix(f"{hook}=")
        problem = _problem(lambda: StrategyText.parse(bare))
        if problem:
            return problem
        unknown = _unknown(StrategyText.parse(bare).name, f"{hook} strategy", installed(hook))
        return unknown or _problem(lambda: Registry.installed(hook).build(bare))

    return check


def _unknown(name: str, kind: str, known: Iterable[str]) -> str | None:
    """A sentence that names the unknown ``name``, a similar known one and all known ones; None where it is known."""
    listed = list(known)
    if name in listed:
        return None
    return f"there is no {kind} {name!r}{did_you_mean(name, listed) or ';'} allowed: {', '.join(listed)}"


def _problem(work: Callable[[], object]) -> str | None:
    try:
        work()
    except HeadwiseError as error:
        return str(error)
    return None


def within(least: float, most: float) -> Callable[[float], str | None]:
    """A check: a number from ``least`` to ``most``."""
    return lambda value: None if least <= value <= most else f"{value:g} is not allowed; allowed: {least:g} to {most:g}"


def at_least(least: int) -> Callable[[float], str | None]:
    """A check: a number that is at least ``least``."""
    return lambda value: None if value >= least else f"{value:g} is too small; allowed: {least} and above"


def positive(value: float) -> str | None:
    """A check: a number above 0."""
    return None if value > 0 else f"{value:g} is no budget; allowed: numbers above 0"


def share(value: float) -> str | None:
    """A check: a number above 0, up to 1."""
    return None if 0 < value <= 1 else f"{value:g} is no share; allowed: numbers above 0, up to 1"


def in_unit(value: float) -> str | None:
    """A check: a number from 0 to 1."""
    return None if 0 <= value <= 1 else f"{value:g} is no share; allowed: 0 to 1"


def single(check: Callable[[T], str | None]) -> Validator:
    """A validator: the value is None or passes ``check``."""

    def check_one(_: object, attribute: attrs.Attribute[object], value: T | None) -> None:
        problem = None if value is None else check(value)
        if problem:
            raise WrongValue(attribute.name, problem)

    return check_one


def not_empty(_: object, attribute: attrs.Attribute[Items], values: Items) -> None:
    """A validator: the list has at least one item."""
    if not values:
        raise WrongValue(attribute.name, "the list is empty; give at least one")
