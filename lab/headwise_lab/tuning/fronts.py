"""Fronts: points that nothing beats, and some of them spread along their cost."""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[float, float]
"""Accuracy, which is to be large, and cost, which is to be small."""


def beats(one: Pair, other: Pair) -> bool:
    """Whether ``one`` is at least as accurate and at most as dear, and better in one of the two."""
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def front(points: Sequence[Pair]) -> list[int]:
    """Numbers of the points that no other beats, in ascending order of cost; of equal points the first."""
    order = sorted(range(len(points)), key=lambda number: (points[number][1], -points[number][0], number))
    kept: list[int] = []
    for number in order:
        if not kept or points[number][0] > points[kept[-1]][0]:
            kept.append(number)
    return kept


def spread(costs: Sequence[float], count: int) -> list[int]:
    """Numbers of ``count`` of the costs, spread by ratio: the dearest, the cheapest, then always the farthest from all.

    In ascending order of cost.
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
