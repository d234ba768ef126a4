"""What a sweep file can say. Every value is judged here, so that whatever is wrong is found before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from headwise.errors import HeadwiseError
from headwise.hints import did_you_mean
from headwise.recipe import AGGREGATES, POSITIONS, named_recipe
from headwise.registry import Registry, installed
from headwise.text import StrategyText
from headwise_lab.benchmarks import names
from headwise_lab.models_io import ATTENTIONS, DTYPES

EVERY = "*"
"""In a list of names: all that are installed."""

STUDIES = ("a", "b", "methods")
"""Layouts that the report has: head scorers across, query strategies across, or whole methods side by side."""


class WrongValue(ValueError):  # noqa: N818 - a value in a file; the reader of the file makes an error of it
    """A value that a sweep file cannot have: its dotted path within the table it stands in, and what is wanted."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


def one_of(allowed: Iterable[str]) -> Any:
    """A validator: the value is None or one of ``allowed``."""
    known = tuple(allowed)

    def check(_: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
        if value is not None and value not in known:
            hint = did_you_mean(value, known) or ";"
            raise WrongValue(attribute.name, f"{value!r} is not allowed{hint} allowed: {', '.join(known)}")

    return check


def each(check: Callable[[Any], str | None]) -> Any:
    """A validator: no item of the list has a problem, and none stands there twice."""

    def check_all(_: object, attribute: attrs.Attribute[Any], values: Iterable[Any]) -> None:
        seen: list[Any] = []
        for number, value in enumerate(values):
            problem = f"{value!r} is given twice; leave one out" if value in seen else check(value)
            if problem:
                raise WrongValue(f"{attribute.name}[{number}]", problem)
            seen.append(value)

    return check_all


def known_benchmark(name: str) -> str | None:
    """What is wrong with the name of a benchmark."""
    return _unknown(name.rpartition("/")[2], "benchmark", names())


def known_recipe(name: str) -> str | None:
    """What is wrong with the name of a recipe."""
    if name == EVERY:
        return None
    return _unknown(name, "recipe", installed("recipe")) or _problem(lambda: named_recipe(name))


def known_strategy(hook: str) -> Callable[[str], str | None]:
    """What is wrong with a strategy text of ``hook``, options included."""

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
    """That there is no such thing, what may be meant, and what there is."""
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


def at_least(least: int) -> Callable[[float], str | None]:
    """What is wrong with a number below ``least``."""
    return lambda value: None if value >= least else f"{value:g} is too small; allowed: {least} and above"


def _positive(value: float) -> str | None:
    return None if value > 0 else f"{value:g} is no budget; allowed: numbers above 0"


def _share(value: float) -> str | None:
    return None if 0 < value <= 1 else f"{value:g} is no share; allowed: numbers above 0, up to 1"


def _in_unit(value: float) -> str | None:
    return None if 0 <= value <= 1 else f"{value:g} is no share; allowed: 0 to 1"


def _single(check: Callable[[Any], str | None]) -> Any:
    def check_one(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        problem = None if value is None else check(value)
        if problem:
            raise WrongValue(attribute.name, problem)

    return check_one


def _not_empty(_: object, attribute: attrs.Attribute[Any], values: tuple[Any, ...]) -> None:
    if not values:
        raise WrongValue(attribute.name, "the list is empty; give at least one")


@attrs.frozen(kw_only=True)
class Settings:
    """What a recipe says beside strategies and budget, for all trials; None leaves it to the recipe."""

    positions: str | None = attrs.field(default=None, validator=one_of(POSITIONS))
    aggregate: str | None = attrs.field(default=None, validator=one_of(AGGREGATES))
    min_mass: float | None = attrs.field(default=None, validator=_single(_in_unit))
    sink_share: float | None = attrs.field(default=None, validator=_single(_in_unit))


@attrs.frozen(kw_only=True)
class Budgets:
    """Budgets that everything is compared at; without any, those of seed 002 as far as the model can meet them.

    ``tokens``: visual tokens processed per layer, on average; ``shares``: the same as shares of the model's visual
    tokens; ``keep``: visual tokens left after the last stage.
    """

    tokens: tuple[float, ...] = attrs.field(default=(), validator=each(_positive))
    shares: tuple[float, ...] = attrs.field(default=(), validator=each(_share))
    keep: tuple[int, ...] = attrs.field(default=(), validator=each(at_least(1)))


@attrs.frozen(kw_only=True)
class Grid:
    """Strategies of four hooks, each with each. ``"*"`` stands for all that are installed.

    ``heads`` and ``head_shares`` are counts beside those of ``head_count``: ``fixed:heads=N``. A scorer that decides
    on its own how many heads it keeps meets them once, as ``all``.
    """

    token_pruning: tuple[str, ...] = attrs.field(
        default=("fastv:layer=2",), validator=[_not_empty, each(known_strategy("token_pruning"))]
    )
    head_scoring: tuple[str, ...] = attrs.field(
        default=("sum",), validator=[_not_empty, each(known_strategy("head_scoring"))]
    )
    head_count: tuple[str, ...] = attrs.field(default=(), validator=each(known_strategy("head_count")))
    heads: tuple[int, ...] = attrs.field(default=(), validator=each(at_least(1)))
    head_shares: tuple[float, ...] = attrs.field(default=(), validator=each(_share))
    query_selection: tuple[str, ...] = attrs.field(
        default=("last_token",), validator=[_not_empty, each(known_strategy("query_selection"))]
    )


@attrs.frozen(kw_only=True)
class SweepFile:
    """A whole sweep: models x benchmarks x seeds x budgets x what is compared.

    ``title`` heads the report; ``study`` says which layout of the report the trials belong to. ``unpruned`` adds the
    model as it is, ``baseline`` FastV at every budget (for grids: ``sum`` over all heads at each token pruning), and
    ``control`` random heads, as many, for every grid. ``data`` is as in ``headwise run``, relative to the file.
    """

    title: str | None = None
    study: str | None = attrs.field(default=None, validator=one_of(STUDIES))
    models: tuple[str, ...] = attrs.field(default=("demo-llava",), validator=[_not_empty, each(lambda _: None)])
    benchmarks: tuple[str, ...] = attrs.field(default=(), validator=each(known_benchmark))
    seeds: tuple[int, ...] = attrs.field(default=(0,), validator=[_not_empty, each(at_least(0))])
    limit: int | None = attrs.field(default=None, validator=_single(at_least(1)))
    batch: int = attrs.field(default=16, validator=_single(at_least(1)))
    timed_batches: int = attrs.field(default=3, validator=_single(at_least(1)))
    dtype: str = attrs.field(default="float32", validator=one_of(DTYPES))
    device: str = "cpu"
    attention: str = attrs.field(default="sdpa", validator=one_of(ATTENTIONS))
    data: str | None = None
    unpruned: bool = True
    baseline: bool = True
    control: bool = True
    recipes: tuple[str, ...] = attrs.field(default=(), validator=each(known_recipe))
    budgets: Budgets = attrs.field(factory=Budgets)
    settings: Settings = attrs.field(factory=Settings)
    grids: tuple[Grid, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not (self.recipes or self.grids):
            raise WrongValue("recipes", "nothing is compared; give recipes = [...] or a table [[grids]]")
