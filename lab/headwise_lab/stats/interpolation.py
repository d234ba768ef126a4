"""Interpolation between the budgets of a reference, and how large its error may be.

Budgets are spread like powers of two, so values between two of them are linear in the logarithm of the budget.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import attrs


@attrs.frozen
class Place:
    """A budget between two points of a curve: ``share`` of the way from ``left`` to ``right``, in log2(budget)."""

    left: int
    right: int
    share: float


def place(budgets: Sequence[float], wanted: float) -> Place | None:
    """The place of ``wanted`` among ascending budgets above 0; None where it is below or above all of them."""
    for index, budget in enumerate(budgets):
        if math.isclose(budget, wanted, rel_tol=1e-9):
            return Place(index, index, 0.0)
    for left, (low, high) in enumerate(itertools.pairwise(budgets)):
        if low < wanted < high:
            return Place(left, left + 1, math.log2(wanted / low) / math.log2(high / low))
    return None


def left_out(budgets: Sequence[float], values: Sequence[float]) -> list[float]:
    """For each inner point, the error if it were left out: the value interpolated from its neighbours minus its own."""
    errors = []
    for inner in range(1, len(budgets) - 1):
        share = math.log2(budgets[inner] / budgets[inner - 1]) / math.log2(budgets[inner + 1] / budgets[inner - 1])
        errors.append((1 - share) * values[inner - 1] + share * values[inner + 1] - values[inner])
    return errors


def interpolation_error(budgets: Sequence[float], values: Sequence[float], at: Place) -> float | None:
    """The largest error that the interpolation may have at a place; None with fewer than three points.

    On a curve of constant curvature, the error is d1 * d2 * curvature / 2 at distances d1, d2 (in log2) from the
    neighbours. The curvature follows from the errors of leaving out the inner points next to the place, of which the
    larger is taken.
    """
    if at.share == 0:
        return 0.0
    errors = left_out(budgets, values)
    steps = [math.log2(high / low) for low, high in itertools.pairwise(budgets)]
    near = [
        abs(errors[inner - 1]) / (steps[inner - 1] * steps[inner])
        for inner in (at.left, at.right)
        if 0 < inner < len(budgets) - 1
    ]
    if not near:
        return None
    return max(near) * at.share * (1 - at.share) * steps[at.left] ** 2
