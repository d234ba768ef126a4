"""Figures of methods: what is left of the score against what is left of the prefill time."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import matplotlib

from headwise_lab.report.heads.efficiency import cost_of
from headwise_lab.report.methods.methods import CONTROLS, REFERENCE, Methods
from headwise_lab.report.methods.tables import order, shares
from headwise_lab.report.page.canvas import GREY, INK, STYLE, Colour, Figure, colours, new_canvas, save_all
from headwise_lab.report.page.drawing import bar_length, pale_grid, unpruned_line
from headwise_lab.store.record_types import VisualRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Look = tuple[Colour, str | None]
"""A colour, and the marker of a control. The markers of other methods say where they prune."""

_SIZES = (8.0, 6.0, 4.5, 3.5)  # of the markers, the largest budget first
_WIDTH = 32  # letters in a line of the legend
_CONTROL_MARKERS = ("x", "+", "1", "2", "*")

_HOW = (
    "Whole prefill of a question, vision tower included, timed in turns with the unpruned model on the same batches"
    " (medians). A line is a method, its markers are the budgets, the largest budget the largest marker: circles prune"
    " before the language model, squares within it; grey: controls. Bars: one standard error."
)


@attrs.frozen
class Point:
    """A marker: method, budget, place, error, and whether the method prunes before the language model (``early``)."""

    name: str
    budget: str
    x: float
    y: float
    se: float
    early: bool


def looks(compared: Sequence[Methods]) -> dict[str, Look]:
    """Method -> how it looks in every figure of a report. Controls are grey and differ by their markers."""
    names = sorted({name for methods in compared for name in methods.names})
    others = itertools.cycle(colours())
    markers = itertools.cycle(_CONTROL_MARKERS)
    found: dict[str, Look] = {REFERENCE: (INK, None)}
    for name in names:
        if name in CONTROLS:
            found[name] = GREY, next(markers)
        elif name != REFERENCE:
            found[name] = next(others), None
    return found


def draw_scores(methods: Methods, chosen: Mapping[str, Look], folder: Path) -> Figure | None:
    """Score against measured prefill time on one benchmark; None where nothing was timed."""
    points = [
        Point(result.name, budget, share, trial.value, trial.se or 0.0, _early(trial.record))
        for budget in methods.budgets
        for result in methods.at(budget)
        for trial in [result.trial]
        if (share := cost_of(trial).prefill_share) is not None
    ]
    unpruned = methods.unpruned.value if methods.unpruned else None
    path = folder / f"{methods.slug}-prefill.png"
    caption = f"{methods.title}: {methods.metric} against measured prefill time. {_HOW}"
    if not points:
        return None
    _plot(points, {name: chosen[name] for name in methods.names}, path, label=methods.metric, unpruned=unpruned)
    return Figure(path, caption, methods.slug)


def draw_overview(compared: Sequence[Methods], chosen: Mapping[str, Look], folder: Path) -> Figure | None:
    """The mean share of the unpruned model's scores against prefill time; None where nothing was timed."""
    found = shares(compared)
    records = {key: result.trial.record for one in compared for key, result in one.results.items()}
    points = [
        Point(share.name, share.budget, share.prefill, share.value, share.se, _early(records[share.name, share.budget]))
        for share in found
        if share.prefill is not None
    ]
    path = folder / "methods-prefill.png"
    names = ", ".join(one.benchmark for one in compared)
    caption = (
        f"Mean score over {names}, in per cent of the unpruned model's, against measured prefill time (median over"
        f" benchmarks). {_HOW}"
    )
    if not points:
        return None
    named = {name: chosen[name] for name in order(found)}
    _plot(points, named, path, label="score, % of the unpruned model's", unpruned=100.0)
    return Figure(path, caption, "methods-overview")


def _early(record: VisualRecord) -> bool:
    return any(stage.layer == 0 for stage in record.stages or ())


def _plot(
    points: Sequence[Point], named: Mapping[str, Look], path: Path, *, label: str, unpruned: float | None
) -> None:
    """Draw all markers, the line of the unpruned model and the legend into ``path``."""
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(9.4, 5.2)
        panel = canvas.subplots()
        budgets = list(dict.fromkeys(point.budget for point in points))
        for name, look in named.items():
            _method(panel, [point for point in points if point.name == name], budgets, name, look)
        unpruned_line(panel, unpruned)
        panel.set_xlabel("prefill time, as a share of the unpruned model's")
        panel.set_ylabel(label)
        pale_grid(panel, "both")
        canvas.legend(loc="outside right upper", fontsize=8)
        save_all(canvas, path)


def _method(panel: Axes, points: Sequence[Point], budgets: Sequence[str], name: str, look: Look) -> None:
    """One method: a thin line through its budgets, and a marker with an error bar for each."""
    if not points:
        return
    colour, marker = look
    marker = marker or ("o" if points[0].early else "s")
    width = 1.8 if name == REFERENCE else 0.9
    panel.plot([point.x for point in points], [point.y for point in points], color=colour, linewidth=width, alpha=0.7)
    for number, point in enumerate(points):
        size = _SIZES[min(budgets.index(point.budget), len(_SIZES) - 1)]
        panel.errorbar(
            [point.x], [point.y], yerr=[bar_length(point.se)], color=colour, marker=marker,
            markersize=size, capsize=2, elinewidth=0.9, linestyle="none",
            label=textwrap.fill(name, _WIDTH) if number == 0 else None,
            zorder=3 if name == REFERENCE else 2,
        )  # fmt: skip
