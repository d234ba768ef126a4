"""Dividing a total where each next piece gains most: concave curves, and a greedy allocation over them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
import numpy as np
import numpy.typing as npt


@attrs.frozen
class Curve:
    """What a size is worth, such as attention mass by window: the corners of a concave, piecewise linear function."""

    windows: tuple[int, ...]
    mass: tuple[float, ...]

    def at(self, window: float) -> float:
        """The value at ``window``, the last corner's beyond it."""
        return float(np.interp(window, self.windows, self.mass))

    def steps(self) -> list[tuple[float, int]]:
        """(gain of one more entry, entries that gain it), falling."""
        corners = zip(self.windows, self.mass, strict=True)
        return [((after - before) / (to - start), to - start) for (start, before), (to, after) in pairwise(corners)]


def concave(windows: Sequence[int], mass: npt.NDArray[np.float64], least: int) -> Curve:
    """The smallest concave curve above the measured one, from the window ``least`` on."""
    first = (least, float(np.interp(least, (0, *windows), (0, *mass))))
    corners = [first]
    for point in zip(windows, mass.tolist(), strict=True):
        if point[0] <= least:
            continue
        while len(corners) > 1 and _rate(corners[-2], corners[-1]) <= _rate(corners[-1], point):
            corners.pop()
        corners.append(point)
    return Curve(*zip(*corners, strict=True))


def _rate(start: tuple[int, float], to: tuple[int, float]) -> float:
    return (to[1] - start[1]) / (to[0] - start[0])


def greedy(curves: Sequence[Curve], least: int, total: int) -> list[int]:
    """Windows of at least ``least`` with the sum ``total``: entries go where they gain most, equals in order."""
    windows = [least] * len(curves)
    steps = [(gain, entries, head) for head, curve in enumerate(curves) for gain, entries in curve.steps() if gain > 0]
    spare = total - sum(windows)
    for _, entries, head in sorted(steps, key=lambda step: -step[0]):
        taken = min(entries, spare)
        windows[head] += taken
        spare -= taken
    even, rest = divmod(spare, len(curves))
    return [window + even + (head < rest) for head, window in enumerate(windows)]
