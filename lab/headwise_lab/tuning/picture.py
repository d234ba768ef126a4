"""The figure of a search: every point by cost and accuracy, the front, and the front on the held-out questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from headwise_lab.report.page.canvas import GREY, INK, LINES, SERIES, STYLE, Figure, new_canvas, save_all
from headwise_lab.tuning.confirming import Again
from headwise_lab.tuning.judging import Accuracy
from headwise_lab.tuning.outcome import SearchOutcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_FOUND, _HELD = SERIES[5], SERIES[0]


def draw(outcome: SearchOutcome, folder: Path) -> Figure:
    """Draw ``front.png``, and the same figure as SVG and PDF beside it."""
    path = folder / "front.png"
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(8.2, 4.8)
        panel = canvas.subplots()
        panel.axhline(100, color=GREY, linestyle=":", linewidth=1.3, label="unpruned", zorder=1)
        _search(panel, outcome)
        _held_out(panel, outcome)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
        panel.minorticks_off()
        panel.set_xticks(_ticks([outcome.shown(one.value.cost) for one in outcome.found]))
        panel.set_xlabel(outcome.axis)
        panel.set_ylabel("accuracy, % of the unpruned model's")
        panel.grid(color=LINES, linewidth=0.7)
        canvas.legend(loc="outside right upper", fontsize=8)
        save_all(canvas, path)
    names = ", ".join(record.benchmark for record in outcome.searched.unpruned)
    key = "pale: on the questions of the search; dark: held out, with 95% intervals" if outcome.judged else "front"
    return Figure(path, f"{outcome.title} on {names}: accuracy against cost ({key}).", "front")


def _search(panel: Axes, outcome: SearchOutcome) -> None:
    """All points that the search measured, and the steps of its front."""
    points = [(outcome.shown(one.value.cost), one.value.accuracy) for one in outcome.found]
    costs, accuracies = zip(*points, strict=True)
    panel.scatter(costs, accuracies, s=14, color=_FOUND, label="measured by the search", zorder=2)
    front = [(outcome.shown(one.value.cost), one.value.accuracy) for one in outcome.front]
    panel.step(*zip(*front, strict=True), where="post", color=_FOUND, linewidth=1.4, label="its front", zorder=2)


def _held_out(panel: Axes, outcome: SearchOutcome) -> None:
    """The front on the held-out questions, a line from each point to its place in the search, and the references."""
    ours: list[tuple[float, Accuracy]] = []
    for one in outcome.judged:
        if one.held_out is not None and one.confirmed.again.value is not None:
            cost = outcome.shown(one.confirmed.again.value.cost)
            ours.append((cost, one.held_out))
            before = outcome.shown(one.confirmed.found.value.cost)
            panel.plot([before, cost], [one.search.value, one.held_out.value], color=_FOUND, linewidth=0.8, zorder=1)
    _with_bars(panel, ours, 1.0, label="front, held out", color=_HELD, marker="o", zorder=4)
    fastv = [(one.confirmed.fastv, one.fastv) for one in outcome.judged]
    chance = [(one.confirmed.random, one.random) for one in outcome.judged]
    _with_bars(panel, _placed(outcome, fastv), 0.988, label="FastV, held out", color=INK, marker="s", zorder=3)
    _with_bars(
        panel, _placed(outcome, chance), 1.012, label="random tokens, held out", color=GREY, marker="x", zorder=3
    )


def _placed(
    outcome: SearchOutcome, found: Sequence[tuple[Again | None, Accuracy | None]]
) -> list[tuple[float, Accuracy]]:
    return [
        (outcome.shown(again.value.cost), figure)
        for again, figure in found
        if again is not None and again.value is not None and figure is not None
    ]


def _with_bars(panel: Axes, points: Sequence[tuple[float, Accuracy]], aside: float, **look: Any) -> None:
    """Draw accuracies with their intervals; costs are multiplied by ``aside``, so that no point hides another."""
    if points:
        low = [0.0 if math.isnan(figure.low) else figure.value - figure.low for _, figure in points]
        high = [0.0 if math.isnan(figure.high) else figure.high - figure.value for _, figure in points]
        panel.errorbar(
            [aside * cost for cost, _ in points], [figure.value for _, figure in points], yerr=[low, high],
            linestyle="none", markersize=5, capsize=2, elinewidth=0.9, **look,
        )  # fmt: skip


def _ticks(costs: Sequence[float]) -> list[float]:
    """Five ticks at equal ratios, from the smallest cost to the largest, rounded to two digits."""
    low, high = min(costs), max(costs)
    return sorted({float(f"{low * (high / low) ** (step / 4):.2g}") for step in range(5)})
