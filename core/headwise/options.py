"""Options that several strategies have: the same words, defaults and refusals everywhere.

A strategy takes a group of options by deriving from it. attrs lists inherited options first, and one that is declared
anew last; :func:`own_first` and :func:`in_place` list them otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from attrs import converters, validators
from torch import Tensor

from headwise.eviction import Score, ScorePlan, check_budget
from headwise.geometry import Geometry
from headwise.numbers import number_or_none, whole, whole_or_none

DEFAULT_RATIO = 0.5
"""Share of the tokens read that is kept where neither ``budget`` nor ``ratio`` is given."""

Fields = list["attrs.Attribute[object]"]


def own_first(kind: type, fields: Fields) -> Fields:
    """Field transformer: the options of the class itself come before those that it inherits."""
    inherited = _inherited(kind)
    return sorted(fields, key=lambda field: field.name in inherited)


def in_place(kind: type, fields: Fields) -> Fields:
    """Field transformer: an inherited option that the class declares anew stays where it was."""
    inherited = _inherited(kind)
    return sorted(fields, key=lambda field: inherited.get(field.name, len(inherited)))


def _inherited(kind: type) -> dict[str, int]:
    """Names of the fields of a class's bases, and their places."""
    names = [field.name for base in kind.__bases__ if attrs.has(base) for field in attrs.fields(base)]
    return {name: place for place, name in enumerate(names)}


def layer_list(text: object, example: str, count: int | None = None) -> str:
    """Converter of layers such as ``8/16/24``: whole numbers from 1 up, ascending, ``count`` of them where it is given.

    Raises ValueError, which shows an ``example``, for anything else.
    """
    layers = [whole(part) for part in str(text).split("/")]
    if layers[0] < 1 or sorted(set(layers)) != layers or len(layers) != (count or len(layers)):
        many = "" if count is None else f"{count} "
        raise ValueError(f"layers={text} are not {many}ascending layers from 1 up; write layers={example}")
    return "/".join(map(str, layers))


def layers_in(text: str) -> tuple[int, ...]:
    """The layers of a :func:`layer_list`."""
    return tuple(int(layer) for layer in text.split("/"))


@attrs.frozen(eq=False)
class HeadRange:
    """``low`` and ``high``, the fewest and most heads that a head count keeps (default: 1 and all of the model).

    Raises ValueError where ``low`` is above ``high``.
    """

    low: int | None = attrs.field(
        default=None, converter=whole_or_none, validator=validators.optional(validators.ge(1))
    )
    high: int | None = attrs.field(
        default=None, converter=whole_or_none, validator=validators.optional(validators.ge(1))
    )

    def __attrs_post_init__(self) -> None:
        if (self.low or 1) > (self.high or math.inf):
            raise ValueError(f"low={self.low} is above high={self.high}")

    def counts(self, scores: Tensor, wanted: Callable[[list[float]], int]) -> Tensor:
        """Head counts (b,), int64: what ``wanted`` says of the scores (b, h) of a row, brought into the range.

        ``wanted`` is given the scores of the heads that are not vetoed, in the order of the heads; a count never
        exceeds their number, but is at least 1.
        """
        rows = ([score for score in row if score > -math.inf] for row in scores.tolist())
        found = [self._within(wanted(row), len(row)) for row in rows]
        return torch.tensor(found, dtype=torch.int64, device=scores.device)

    def _within(self, wanted: int, heads: int) -> int:
        return max(1, min(max(wanted, self.low or 1), self.high or heads, heads))


def _one_limit(strategy: ScoreOptions, _: attrs.Attribute[float | None], ratio: float | None) -> None:
    """Validator of ``ratio``: exactly one of ``budget`` and ``ratio``, and in its range; raises BudgetError."""
    check_budget(strategy.budget, ratio)


@attrs.frozen(eq=False)
class ScoreOptions:
    """The options that all score-based KV-eviction strategies have.

    ``budget`` entries per KV head stay, or the share ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last
    tokens always stay; in decoding, every ``every``-th token evicts; ``rerotate`` closes the gaps in the keys. Raises
    BudgetError where both limits are given; without either, half of the tokens are kept.
    """

    budget: int | None = attrs.field(default=None, converter=whole_or_none)
    ratio: float | None = attrs.field(converter=number_or_none, validator=_one_limit)
    sinks: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    recent: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    every: int = attrs.field(default=16, converter=whole, validator=validators.ge(0))
    rerotate: bool = attrs.field(default=False, converter=converters.to_bool)

    @ratio.default
    def _half_without_budget(self) -> float | None:
        return DEFAULT_RATIO if self.budget is None else None

    def plan(
        self,
        geometry: Geometry,
        score: Score,
        *,
        queries: int = 0,
        accumulates: bool = False,
        rotates: bool = False,
    ) -> ScorePlan:
        """A plan with these options; what else is given is that of :class:`headwise.eviction.ScorePlan`.

        Raises BudgetError for a budget that cannot hold what is protected.
        """
        return ScorePlan(
            geometry=geometry,
            score=score,
            budget=self.budget,
            ratio=self.ratio,
            sinks=self.sinks,
            recent=self.recent,
            every=self.every,
            rerotate=self.rerotate,
            queries=queries,
            accumulates=accumulates,
            rotates=rotates,
        )


def _odd(_: object, __: object, kernel: int) -> None:
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel={kernel} has no middle; give an odd number of 1 or more")


@attrs.frozen(eq=False)
class LastQueriesOptions(ScoreOptions):
    """Those of strategies that let the last ``queries`` tokens judge, their attention pooled over neighbours.

    ``kernel``: how many neighbouring entries are pooled, an odd number; ``pool``: to their ``avg`` or ``max``. By
    default the ``recent`` tokens are the last ``queries``, but at most half of a ``budget``.
    """

    queries: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    kernel: int = attrs.field(default=5, converter=whole, validator=_odd)
    pool: str = attrs.field(default="avg", validator=validators.in_(("avg", "max")))
    sinks: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    recent: int = attrs.field(converter=whole, validator=validators.ge(0))
    every: int = attrs.field(default=16, converter=whole, validator=validators.ge(0))
    rerotate: bool = attrs.field(default=False, converter=converters.to_bool)

    @recent.default
    def _queries_or_half_a_budget(self) -> int:
        return self.queries if self.budget is None else min(self.queries, self.budget // 2)
