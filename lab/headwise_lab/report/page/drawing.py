"""Parts that several pictures of a report share: pale lines, named lines, intervals, legends, the unpruned model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from headwise_lab.report.page.canvas import BETTER, GREY, GROUND, INK, LINES, WORSE, marked
from headwise_lab.stats import differences
from headwise_lab.stats.differences import FEWEST, Difference
from headwise_lab.stats.power import smallest_seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

VERDICTS = {differences.BETTER: (BETTER, "^"), differences.WORSE: (WORSE, "v"), differences.SAME: (GREY, "o")}
"""Colour and marker of a verdict."""

SIGNS = "Triangles: better (up) or worse (down); hollow circles: no difference."


def pale_grid(panel: Axes, axis: Literal["x", "y", "both"], which: Literal["major", "both"] = "major") -> None:
    """Thin pale lines behind a picture, across the axis or axes named."""
    panel.grid(axis=axis, which=which, color=LINES, linewidth=0.7)


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


def interval(
    panel: Axes, line: float, found: Difference, name: str, facets: Mapping[str, str], *, size: float = 5
) -> None:
    """A paired difference with its interval on a line of a picture; colour and marker are those of its verdict."""
    low, high = (found.value if math.isnan(end) else end for end in (found.low, found.high))
    colour, marker = VERDICTS[found.verdict or differences.SAME]
    drawn = panel.errorbar(
        [found.value], [line], xerr=[[max(0.0, found.value - low)], [max(0.0, high - found.value)]], color=colour,
        marker=marker, markersize=size, capsize=2, elinewidth=1, zorder=3,
        markerfacecolor=colour if found.clear else GROUND,
    )  # fmt: skip
    marked(drawn.get_children(), f"{name}: {found.value:+.3g} ({low:+.3g} to {high:+.3g}), {found.verdict}", **facets)


def zero_line(panel: Axes) -> None:
    """The line at a difference of zero."""
    panel.axvline(0, color=INK, linewidth=1, zorder=1)


def below(canvas: Canvas, panels: Sequence[Axes], records: Mapping[str, str] | None = None, size: float = 8) -> None:
    """One legend for all panels, below them. ``records``: name -> ids, by which filters hide the name."""
    entries = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    width = max(2, int(canvas.get_figwidth() // 1.7))
    legend = canvas.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=width, fontsize=size)
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        if ids := (records or {}).get(text.get_text()):
            marked([handle, text], text.get_text(), records=ids)


def seen(
    found: Iterable[Difference | None], unit: str = "questions", shown: Callable[[float], str] = "{:.2g}".format
) -> str:
    """How many units the differences of a picture stand on, and the smallest difference that could have been seen."""
    made = [one for one in found if one is not None]
    if not made:
        return ""
    counts = sorted({one.n for one in made})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if counts[-1] < FEWEST:
        return f"n = {n} {unit}, paired; on fewer than {FEWEST} no difference can count."
    least, family = smallest_seen(made), max(one.family for one in made)
    small = "" if least is None else (
        f"; the smallest difference that could have been seen 4 of 5 times"
        f" ({family} comparisons): {shown(least)}"
    )  # fmt: skip
    return f"n = {n} {unit}, paired{small}."
