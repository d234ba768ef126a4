"""Pareto fronts: the points that no other point beats, and a choice of them spread along the cost."""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[float, float]
"""(accuracy, cost): the first should be large, the second small."""


def beats(one: Pair, other: Pair) -> bool:
    """Whether ``one`` is at least as accurate, costs at most as much, and is better in one of the two."""
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def front(points: Sequence[Pair]) -> list[int]:
    """Indices of the points that no other point beats, in ascending order of cost; of equal points the first."""
    order = sorted(range(len(points)), key=lambda number: (points[number][1], -points[number][0], number))
    kept: list[int] = []
    for number in order:
        if not kept or points[number][0] > points[kept[-1]][0]:
            kept.append(number)
    return kept


def spread(costs: Sequence[float], count: int) -> list[int]:
    """Indices of ``count`` costs, spread by ratio, in ascending order of cost.

    The largest and the smallest cost are chosen first, then each time the cost that is farthest from all chosen ones.
    """
    order = sorted(range(len(costs)), key=lambda number: costs[number])
    if len(order) <= count:
        return order
    chosen = [order[-1], order[0]][:count]
    while len(chosen) < count:
        left = [number for number in order if number not in chosen]
        chosen.append(max(left, key=lambda number: min(_ratio(costs[number], costs[other]) for other in chosen)))
    return sorted(chosen, key=lambda number: costs[number])


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)
