"""Figures of a comparison of methods: what is left of the score against what is left of the prefill time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import matplotlib

from headwise_lab.report.figures import GREY, INK, STYLE, Figure, new_canvas, save
from headwise_lab.report.methods import CONTROLS, REFERENCE, Methods
from headwise_lab.report.methods_tables import order, shares

_SIZES = (8.0, 6.0, 4.5, 3.5)  # of the markers, the largest budget first
_CONTROL_MARKERS = ("x", "+", "1", "2", "*")

_HOW = (
    "Whole prefill of a question, vision tower included, timed in turns with the unpruned model on the same batches"
    " (medians). A line is a method, its markers are the budgets, the largest budget the largest marker: circles prune"
    " before the language model, squares within it; grey: controls. Bars: one standard error."
)


@attrs.frozen
class Point:
    """A marker: method, budget, where it stands, its error, and whether tokens leave before the language model."""

    name: str
    budget: str
    x: float
    y: float
    se: float
    early: bool


def draw(methods: Methods, folder: Path) -> Figure | None:
    """Score against measured prefill time on one benchmark; None where nothing was timed."""
    points = [
        Point(result.name, budget, share, trial.value, trial.se or 0.0, _early(trial.record))
        for budget in methods.budgets
        for result in methods.at(budget)
        for trial in [result.trial]
        if (share := trial.number("cost", "prefill_share")) is not None
    ]
    unpruned = methods.unpruned.value if methods.unpruned else None
    path = folder / f"{methods.slug}-prefill.png"
    caption = f"{methods.title}: {methods.metric} against measured prefill time. {_HOW}"
    if not points:
        return None
    _plot(points, methods.names, path, label=methods.metric, unpruned=unpruned)
    return Figure(path, caption, methods.slug)


def draw_overview(compared: Sequence[Methods], folder: Path) -> Figure | None:
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
    _plot(points, order(found), path, label="score, % of the unpruned model's", unpruned=100.0)
    return Figure(path, caption, "methods-overview")


def _early(record: Any) -> bool:
    return any(stage.get("layer") == 0 for stage in record.get("stages") or ())


def _plot(points: Sequence[Point], names: Sequence[str], path: Path, *, label: str, unpruned: float | None) -> None:
    """Draw all markers, the unpruned model's lines and the legend into ``path``."""
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(9.4, 5.2)
        panel = canvas.subplots()
        budgets = list(dict.fromkeys(point.budget for point in points))
        for name, look in _looks(names).items():
            _method(panel, [point for point in points if point.name == name], budgets, name, look)
        if unpruned is not None:
            panel.axhline(unpruned, color=GREY, linestyle=":", linewidth=1.3, label="unpruned", zorder=1)
        panel.axvline(1.0, color=GREY, linestyle=":", linewidth=1.0, zorder=1)
        panel.set_xlabel("prefill time, share of the unpruned model's")
        panel.set_ylabel(label)
        panel.grid(color="#e4e7eb", linewidth=0.7)
        canvas.legend(loc="outside right upper", fontsize=8)
        save(canvas, path)


def _looks(names: Sequence[str]) -> dict[str, tuple[Any, str | None]]:
    """Method -> colour, and for controls the marker that tells their greys apart."""
    colours = [matplotlib.colormaps["tab10"](index)[:3] for index in range(10) if index != 7]
    colours += [matplotlib.colormaps["Dark2"](index)[:3] for index in range(7)]
    chosen = {name: number for number, name in enumerate(name for name in names if name not in (*CONTROLS, REFERENCE))}
    grey = {name: number for number, name in enumerate(name for name in names if name in CONTROLS)}
    looks: dict[str, tuple[Any, str | None]] = {}
    for name in names:
        if name in grey:
            looks[name] = GREY, _CONTROL_MARKERS[grey[name] % len(_CONTROL_MARKERS)]
        else:
            looks[name] = INK if name == REFERENCE else colours[chosen[name] % len(colours)], None
    return looks


def _method(
    panel: Any, points: Sequence[Point], budgets: Sequence[str], name: str, look: tuple[Any, str | None]
) -> None:
    """One method: a thin line through its budgets, and a marker with its error for each."""
    if not points:
        return
    colour, marker = look
    marker = marker or ("o" if points[0].early else "s")
    width = 1.8 if name == REFERENCE else 0.9
    panel.plot([point.x for point in points], [point.y for point in points], color=colour, linewidth=width, alpha=0.7)
    for number, point in enumerate(points):
        size = _SIZES[min(budgets.index(point.budget), len(_SIZES) - 1)]
        panel.errorbar(
            [point.x], [point.y], yerr=[0.0 if math.isnan(point.se) else point.se], color=colour, marker=marker,
            markersize=size, capsize=2, elinewidth=0.9, linestyle="none", label=name if number == 0 else None,
            zorder=3 if name == REFERENCE else 2,
        )  # fmt: skip
