"""Windows where they catch most attention: a mean budget divided among all heads by what each entry gains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
import numpy as np
from attrs import validators

from headwise import BudgetError, DataError, Geometry, HeadProfile, WindowPlan, hookimpl
from headwise.eviction import POSITIONS
from headwise.heads import required
from headwise.marginal_gain import Curve, concave, greedy
from headwise.numbers import number, whole

_WHO = "kv_eviction strategy 'allocated'"


@attrs.frozen(eq=False)
class Allocated:
    """Windows that together hold the most attention at a mean of ``budget`` entries, sinks and query included.

    The profile says how much attention each head gives to its last 1, 2, 3, 4, 6, ... tokens. Between those points
    the curve of a KV head, summed over the query heads that share it, is the smallest concave one above them. All KV
    heads of all layers compete: the next entries go where an entry gains most, the last step is cut so that the mean
    budget is met to the entry (``budget`` need not be whole), and what gains nothing any more is shared evenly. No
    head sees less than the share ``floor`` of the budget, rounded down.

    At most ``levels`` different windows remain in a layer, which is how many dense products its attention takes:
    neighbouring windows are merged into their mean where that loses least, and what the rounding leaves goes to one
    head. ``sinks`` and ``positions`` as in ``streaming``; the profile's mass leaves out its own four sinks.

    Greedy allocation by marginal gain, as Ada-KV (Feng et al. 2024, arXiv 2407.11550) does for scores, with the
    attention lost in place of the loss. Attention mass is not perplexity: compare with ``streaming`` and ``permuted``.
    """

    budget: float = attrs.field(default=64, converter=number, validator=validators.gt(0))
    floor: float = attrs.field(default=0.25, converter=number, validator=[validators.ge(0), validators.le(1)])
    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    levels: int = attrs.field(default=8, converter=whole, validator=validators.ge(2))
    positions: str = attrs.field(default="relative", validator=validators.in_(POSITIONS))

    def __attrs_post_init__(self) -> None:
        if not self.sinks + 1 <= self.budget < float("inf"):
            raise BudgetError(
                f"budget={self.budget:g} is not a number of entries that holds {self.sinks} sinks and the query; give"
                f" at least budget={self.sinks + 1}"
            )

    @hookimpl
    def kv_eviction(self, geometry: Geometry, profile: HeadProfile | None) -> WindowPlan:
        """The windows of all KV heads, (layers, kv_heads)."""
        shape = (geometry.layers, geometry.kv_heads)
        least = max(1, int(self.floor * self.budget) - self.sinks)
        curves = _curves(required(profile, _WHO), geometry, least)
        total = round((self.budget - self.sinks) * len(curves))
        windows = np.array(greedy(curves, least, total)).reshape(shape)
        for layer, first in enumerate(range(0, len(curves), geometry.kv_heads)):
            windows[layer] = _levelled(windows[layer].tolist(), curves[first : first + shape[1]], self.levels)
        return WindowPlan(
            geometry=geometry, sinks=np.full(shape, self.sinks), windows=windows, positions=self.positions
        )


def _curves(profile: HeadProfile, geometry: Geometry, least: int) -> list[Curve]:
    """One curve per KV head, layer by layer, from the window ``least`` on."""
    if profile.mass is None or not profile.windows:
        raise DataError(
            f"the profile of {profile.model!r} has no attention mass by window, which {_WHO}"
            " divides the budget by; make it again with `headwise classify-heads --out profile.json`"
        )
    layers, heads, points = geometry.layers, geometry.kv_heads, len(profile.windows)
    summed = profile.mass.reshape(layers * heads, geometry.heads // heads, points).sum(axis=1)
    return [concave(profile.windows, mass, least) for mass in summed]


def _levelled(windows: Sequence[int], curves: Sequence[Curve], levels: int) -> list[int]:
    """The windows of one layer with at most ``levels`` different ones and the same sum."""
    groups = [[head for head, own in enumerate(windows) if own == window] for window in sorted(set(windows))]
    if len(groups) <= levels:
        return list(windows)

    def merged(group: Sequence[int]) -> int:
        return sum(windows[head] for head in group) // len(group)

    def held(group: Sequence[int]) -> float:
        return sum(curves[head].at(merged(group)) for head in group)

    while len(groups) > levels - 1:
        losses = [held(low) + held(high) - held(low + high) for low, high in pairwise(groups)]
        at = int(np.argmin(losses))
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
    found = {head: merged(group) for group in groups for head in group}
    rest = sum(windows) - sum(found.values())
    gainer = max(found, key=lambda head: curves[head].at(found[head] + rest) - curves[head].at(found[head]))
    found[gainer] += rest
    return [found[head] for head in range(len(windows))]
