"""What the search found, measured on questions that it has not seen, beside FastV and chance at equal averages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from headwise.budget import Budget
from headwise.errors import BudgetError, DataError, HeadwiseError
from headwise_lab.tuning.fronts import front, spread
from headwise_lab.tuning.measuring import Judge, PointError
from headwise_lab.tuning.searching import POINT, Value
from headwise_lab.tuning.space import Point, Space, settled

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LAYERS = {"fastv": (2, 1), "random": (2, 1, 0)}
"""Where the references prune: as FastV was published, or in front of that where it cannot meet an average."""

_REST = {"fastv": ("query_selection=last_token", "head_scoring=sum", "head_count=all"), "random": ()}


@attrs.frozen(eq=False)
class Found:
    """A point that the search measured, the first of those that are alike; ``number`` is its trial's."""

    number: int
    point: Point
    value: Value


@attrs.frozen(eq=False)
class Again:
    """A point on the held-out questions: its value, or why it has none."""

    point: Point
    value: Value | None = None
    reason: str = ""


@attrs.frozen(eq=False)
class Confirmed:
    """A point of the front, measured again, beside FastV and random tokens at its average; None: out of their reach."""

    found: Found
    again: Again
    fastv: Again | None
    random: Again | None

    @property
    def is_reference(self) -> bool:
        """Whether the point is that FastV itself, so that there is nothing to compare."""
        ours, theirs = self.again.value, None if self.fastv is None else self.fastv.value
        return ours is not None and theirs is not None and ours.records == theirs.records


def measured(trials: Sequence[FrozenTrial], space: Space) -> list[Found]:
    """Every different point that the search measured, in the order of its trials."""
    found: dict[Any, Found] = {}
    for trial in trials:
        told = trial.user_attrs.get(POINT)
        if trial.values is None or told is None:
            continue
        value = Value(trial.values[0], trial.values[1], tuple(trial.user_attrs.get("records", ())))
        key = (tuple(told["strategies"]), told["tokens"])
        if key not in found:
            found[key] = Found(trial.number, space.point(*key), value)
    return list(found.values())


def best(found: Sequence[Found], count: int | None = None) -> list[Found]:
    """The front of what the search found, cheapest first: all of it, or ``count`` spread along the cost."""
    kept = [found[number] for number in front([(one.value.accuracy, one.value.cost) for one in found])]
    return kept if count is None else [kept[number] for number in spread([one.value.cost for one in kept], count)]


def confirm(chosen: Iterable[Found], judge: Judge, space: Space) -> Iterable[Confirmed]:
    """Measure points of the front again, each beside FastV and random tokens at its processed average."""
    for found in chosen:
        again = _again(found.point, judge)
        average = found.point.plan.average
        yield Confirmed(found, again, *(_reference(space, average, judge, name) for name in ("fastv", "random")))


def _reference(space: Space, average: float, judge: Judge, name: str) -> Again | None:
    """All heads, or random tokens, at an average; None where the layers in front of the first one process more."""
    for layer in LAYERS[name]:
        texts = (f"token_pruning={name}:layer={layer}", *_REST[name])
        try:
            budget = settled(space.recipe(texts), Budget(tokens=average), space.geometry)
        except BudgetError:
            continue
        return _again(space.point(texts, budget.tokens), judge)
    return None


def _again(point: Point, judge: Judge) -> Again:
    try:
        return Again(point, judge.worth(judge.bench.measure(point.recipe, retry=True)))
    except DataError:  # would befall every other point, too
        raise
    except (PointError, HeadwiseError) as error:
        return Again(point, reason=str(error))
