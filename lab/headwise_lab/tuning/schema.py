"""The keys of a file with a search space; all values are checked before anything runs, as in sweep files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from headwise.errors import HeadwiseError
from headwise_lab.models.load import ATTENTIONS
from headwise_lab.models.placing import AUTO, DTYPES
from headwise_lab.schema.wrong_values import WrongValue
from headwise_lab.sweeps.schema import Settings
from headwise_lab.sweeps.values import (
    EVERY,
    at_least,
    each,
    known_benchmark,
    known_strategy,
    not_empty,
    one_of,
    single,
)
from headwise_lab.tuning.ranges import StrategyChoice

LIMIT = 200
"""Questions of each benchmark that a search asks by default."""


def _known_choice(hook: str) -> Callable[[str], str | None]:
    """A check of a strategy text that may have ranges: the strategy has to accept values from all of them."""

    def check(text: str) -> str | None:
        if text == EVERY:
            return None
        try:
            samples = StrategyChoice.parse(hook, text).samples()
        except HeadwiseError as error:
            return str(error)
        return next(filter(None, map(known_strategy(hook), samples)), None)

    return check


def _listed(hook: str, *default: str) -> Any:
    return attrs.field(default=default, validator=[not_empty, each(_known_choice(hook))])


@attrs.frozen(kw_only=True)
class Choices:
    """Strategies of four hooks; option values may be ranges. ``"*"`` stands for all that need no option."""

    token_pruning: tuple[str, ...] = _listed("token_pruning", "fastv:layer=2")
    query_selection: tuple[str, ...] = _listed("query_selection", "last_token")
    head_scoring: tuple[str, ...] = _listed("head_scoring", EVERY)
    head_count: tuple[str, ...] = _listed("head_count", "all", "fixed:share=0.1..0.9")


def _span(highest: float | None) -> Any:
    """A validator: an empty list, or two numbers above 0 and up to ``highest``, the smaller one first."""

    def check(_: object, attribute: attrs.Attribute[object], ends: tuple[float, ...]) -> None:
        if not ends:
            return
        allowed = "numbers above 0" if highest is None else f"numbers above 0, up to {highest:g}"
        if len(ends) != 2 or not 0 < ends[0] <= ends[1] or (highest is not None and ends[1] > highest):
            raise WrongValue(
                attribute.name,
                f"{list(ends)} is no range of budgets; give [smallest, largest]; allowed: {allowed}",
            )

    return check


@attrs.frozen(kw_only=True)
class Spending:
    """The smallest and the largest processed average: as ``tokens``, or as ``shares`` of the model's visual tokens.

    The search chooses between them, evenly by ratio. By default, they are a ninth and a half of the visual tokens.
    """

    tokens: tuple[float, ...] = attrs.field(default=(), validator=_span(None))
    shares: tuple[float, ...] = attrs.field(default=(), validator=_span(1))

    def __attrs_post_init__(self) -> None:
        if self.tokens and self.shares:
            raise WrongValue("shares", "tokens are given as well; leave one of the two out")

    def span(self, visual: int) -> tuple[float, float]:
        """The smallest and the largest average for a model with ``visual`` visual tokens."""
        if self.tokens:
            return self.tokens[0], self.tokens[1]
        low, high = self.shares or (1 / 9, 1 / 2)
        return low * visual, high * visual


@attrs.frozen(kw_only=True)
class SpaceFile:
    """A search space, and the model and questions to search on.

    ``benchmarks``: by default all synthetic ones. ``limit``: questions of each benchmark in the search; ``held_out``:
    questions of each in the confirmation, by default as many. ``settings``: for all points. ``data``: as in ``headwise
    run``, relative to the file.
    """

    title: str | None = None
    model: str = "demo-llava"
    benchmarks: tuple[str, ...] = attrs.field(default=(), validator=each(known_benchmark))
    limit: int = attrs.field(default=LIMIT, validator=single(at_least(1)))
    held_out: int | None = attrs.field(default=None, validator=single(at_least(1)))
    seed: int = attrs.field(default=0, validator=single(at_least(0)))
    batch: int = attrs.field(default=16, validator=single(at_least(1)))
    dtype: str = attrs.field(default=AUTO, validator=one_of((AUTO, *DTYPES)))
    device: str = AUTO
    attention: str = attrs.field(default="sdpa", validator=one_of(ATTENTIONS))
    data: str | None = None
    choices: Choices = attrs.field(factory=Choices)
    budget: Spending = attrs.field(factory=Spending)
    settings: Settings = attrs.field(factory=Settings)
