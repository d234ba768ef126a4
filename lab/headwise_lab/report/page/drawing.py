"""Parts that several pictures of a report share: pale lines, named lines, error bars, the unpruned model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from headwise_lab.report.page.canvas import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pale_grid(panel: Axes, axis: Literal["x", "y", "both"], which: Literal["major", "both"] = "major") -> None:
    """Thin pale lines behind a picture, across the axis or axes named."""
    panel.grid(axis=axis, which=which, color="#e4e7eb", linewidth=0.7)


def name_lines(panel: Axes, names: Sequence[str], size: float | None = None) -> None:
    """Name the lines of a picture that has one line per name, the first on top."""
    panel.set_yticks(range(len(names)), names, fontsize=size)
    panel.set_ylim(len(names) - 0.4, -0.6)


def bar_length(error: float) -> float:
    """The length of an error bar; 0 where the error is unknown (NaN)."""
    return 0.0 if math.isnan(error) else error


def unpruned_line(panel: Axes, score: float | None, direction: Literal["h", "v"] = "h") -> None:
    """A dotted line at the score of the unpruned model; none where it was not run."""
    draw = panel.axhline if direction == "h" else panel.axvline
    if score is not None:
        draw(score, color=GREY, linestyle=":", linewidth=1.3, label="unpruned", zorder=1)
