"""Measures the search's best points on new questions, beside FastV and random tokens at the same average."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from headwise.budget import Budget
from headwise.errors import BudgetError, DataError, HeadwiseError
from headwise_lab.tuning.fronts import front, spread
from headwise_lab.tuning.measuring import PointError, PointEvaluator
from headwise_lab.tuning.searching import POINT, RECORDS, Value
from headwise_lab.tuning.space import SearchPoint, Space, settled

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LAYERS = {"fastv": (2, 1), "random": (2, 1, 0)}
"""The layers before which the references prune: FastV's published one, then earlier ones for smaller averages."""

_REST = {"fastv": ("query_selection=last_token", "head_scoring=sum", "head_count=all"), "random": ()}


@attrs.frozen(eq=False)
class Found:
    """A point that the search measured; ``number`` is that of the first trial that measured it."""

    number: int
    point: SearchPoint
    value: Value


@attrs.frozen(eq=False)
class Again:
    """A point measured on the held-out questions: its value, or the reason why there is none."""

    point: SearchPoint
    value: Value | None = None
    reason: str = ""


@attrs.frozen(eq=False)
class Confirmed:
    """A point of the front, measured again, and FastV and random tokens at its average (None: they cannot meet it)."""

    found: Found
    again: Again
    fastv: Again | None
    random: Again | None

    @property
    def is_reference(self) -> bool:
        """Whether the point is the same trial as its FastV reference, so that there is nothing to compare."""
        ours, theirs = self.again.value, None if self.fastv is None else self.fastv.value
        return ours is not None and theirs is not None and ours.records == theirs.records


def measured(trials: Sequence[FrozenTrial], space: Space) -> list[Found]:
    """The different points that the search measured, in the order of its trials."""
    found: dict[Any, Found] = {}
    for trial in trials:
        stored = trial.user_attrs.get(POINT)
        if trial.values is None or stored is None:
            continue
        value = Value(trial.values[0], trial.values[1], tuple(trial.user_attrs.get(RECORDS, ())))
        key = (tuple(stored["strategies"]), stored["tokens"])
        if key not in found:
            found[key] = Found(trial.number, space.point(*key), value)
    return list(found.values())


def best(found: Sequence[Found], count: int | None = None) -> list[Found]:
    """The front of the found points, cheapest first: all of them, or ``count`` of them, spread along the cost."""
    kept = [found[number] for number in front([(one.value.accuracy, one.value.cost) for one in found])]
    return kept if count is None else [kept[number] for number in spread([one.value.cost for one in kept], count)]


def confirm(chosen: Iterable[Found], judge: PointEvaluator, space: Space) -> Iterable[Confirmed]:
    """Measure the chosen points again, and for each FastV and random tokens at its processed average."""
    for found in chosen:
        again = _again(found.point, judge)
        average = found.point.plan.average
        yield Confirmed(found, again, *(_reference(space, average, judge, name) for name in ("fastv", "random")))


def _reference(space: Space, average: float, judge: PointEvaluator, name: str) -> Again | None:
    """FastV or random tokens at an average; None where no layer in LAYERS allows so small an average."""
    for layer in LAYERS[name]:
        texts = (f"token_pruning={name}:layer={layer}", *_REST[name])
        try:
            budget = settled(space.recipe(texts), Budget(tokens=average), space.geometry)
        except BudgetError:
            continue
        return _again(space.point(texts, budget.tokens), judge)
    return None


def _again(point: SearchPoint, judge: PointEvaluator) -> Again:
    try:
        return Again(point, judge.worth(judge.bench.measure(point.recipe, retry=True)))
    except DataError:  # every other point would raise it, too
        raise
    except (PointError, HeadwiseError) as error:
        return Again(point, reason=str(error))
