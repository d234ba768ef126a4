"""Figures of head selection: scores against processed tokens, and paired differences to all heads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import matplotlib

from headwise_lab.report.grouping import grouped
from headwise_lab.report.heads.comparison import BASELINE, CONTROL, Comparison, HeadRow
from headwise_lab.report.page import canvas as page
from headwise_lab.report.page.canvas import GREY, INK, STYLE, Figure, marked, new_canvas, save_all
from headwise_lab.report.page.drawing import (
    SIGNS,
    bar_length,
    below,
    interval,
    name_lines,
    pale_grid,
    seen,
    unpruned_line,
    zero_line,
)  # fmt: skip
from headwise_lab.report.page.facets import plain
from headwise_lab.stats.differences import Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def scores(comparison: Comparison, unpruned: float | None, folder: Path) -> Figure | None:
    """Scores against processed tokens, a line per strategy; a dot plot where there is only one budget.

    ``unpruned``: the score of the model without pruning, where it was run.
    """
    if not comparison.rows:
        return None
    path = folder / f"{comparison.slug}-scores.png"
    budgets = {row.budget for row in comparison.rows}
    with matplotlib.rc_context(STYLE):
        (_dots if len(budgets) == 1 else _lines)(comparison, unpruned, path)
    where = f"at {comparison.rows[0].budget}" if len(budgets) == 1 else "against processed tokens"
    return Figure(path, f"{comparison.title}: {comparison.metric} {where}. {_BARS}", comparison.slug)


_BARS = "Bars are one standard error of each figure by itself; pairs, in the tables, separate strategies better."


def _looks(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Column -> colour and marker. All heads have the colour of letters, the control is grey."""
    others = (name for name in comparison.columns if name not in (BASELINE, CONTROL))
    return {BASELINE: (INK, "o"), CONTROL: (GREY, "x"), **dict(zip(others, page.looks(), strict=False))}


def _lines(comparison: Comparison, unpruned: float | None, path: Path) -> None:
    """A panel per head count, two side by side, so that letters are readable on half a page."""
    heads = grouped(comparison.rows, lambda row: row.heads)
    looks = _looks(comparison)
    down, across = math.ceil(len(heads) / 2), min(len(heads), 2)
    canvas = new_canvas(max(5.6, 3.5 * across), 1.0 + 2.3 * down)
    grid = canvas.subplots(down, across, sharey=True, squeeze=False)
    panels = list(grid.flat[: len(heads)])
    for panel in grid.flat[len(heads) :]:
        panel.set_axis_off()
    for panel, rows in zip(panels, heads.values(), strict=True):
        for index, name in enumerate(comparison.columns):
            _line(panel, rows, name, looks[name], _dodge(index, len(comparison.columns), comparison))
        unpruned_line(panel, unpruned)
        panel.set_title(_heads(rows[0]))
        panel.set_xlabel("visual tokens processed per layer, average")
        pale_grid(panel, "y")
    for panel in grid[:, 0]:
        panel.set_ylabel(comparison.metric)
    below(canvas, panels, _records(comparison))
    save_all(canvas, path, _note(comparison))


def _dodge(index: int, count: int, comparison: Comparison) -> float:
    """A small step to the side for each strategy, so that error bars at the same budget do not hide each other."""
    budgets = sorted({row.processed for row in comparison.rows})
    gap = min((right - left for left, right in itertools.pairwise(budgets)), default=1.0)
    return (index - (count - 1) / 2) / max(count - 1, 1) * 0.22 * gap


def _line(panel: Axes, rows: Sequence[HeadRow], name: str, look: tuple[str, str], dodge: float) -> None:
    """A strategy: a line through its budgets, and a marker with a bar for each."""
    found = [(row.processed + dodge, row) for row in rows if name in row.cells]
    if not found:
        return
    colour, marker = look
    first = name == BASELINE
    (line,) = panel.plot(
        [x for x, _ in found], [row.cells[name].value for _, row in found], color=colour,
        linestyle="--" if name == CONTROL else "-", linewidth=2.2 if first else 1.2, zorder=3 if first else 2,
    )  # fmt: skip
    marked([line], name, records=" ".join(_facets(row, name)["records"] for _, row in found))
    for number, (x, row) in enumerate(found):
        cell = row.cells[name]
        drawn = panel.errorbar(
            [x], [cell.value], yerr=[bar_length(cell.se)], color=colour, marker=marker, markersize=4.5, capsize=2,
            elinewidth=0.9, linestyle="none", zorder=3 if first else 2, label=None if number else name,
        )  # fmt: skip
        marked(drawn.get_children(), f"{name}, {_heads(row)}, {row.budget}: {cell.value:.1f}", **_facets(row, name))


def _records(comparison: Comparison) -> dict[str, str]:
    """Column -> the ids of its records."""
    cells = grouped(((name, cell) for _, name, cell in comparison.cells()), lambda pair: pair[0])
    return {name: " ".join(trial.id for _, cell in found for trial in cell.trials) for name, found in cells.items()}


def _note(comparison: Comparison) -> str:
    return seen(cell.against_baseline for _, _, cell in comparison.cells())


def _dots(comparison: Comparison, unpruned: float | None, path: Path) -> None:
    """A line per strategy, a dot per head count."""
    heads = list(dict.fromkeys(row.heads for row in comparison.rows))
    names = _by_score(comparison)
    canvas = new_canvas(6.8, 1.3 + 0.3 * len(names) * max(1, 0.55 * len(heads)))
    panel = canvas.subplots()
    for index, (row, look) in enumerate(zip(comparison.rows, page.looks(), strict=False)):
        _row_dots(panel, row, names, (index - (len(heads) - 1) / 2) * 0.6 / len(heads), look)
    _baseline_dot(panel, comparison, names)
    unpruned_line(panel, unpruned, "v")
    name_lines(panel, names)
    panel.set_xlabel(comparison.metric)
    pale_grid(panel, "x")
    below(canvas, [panel])
    save_all(canvas, path, _note(comparison))


def _row_dots(panel: Axes, row: HeadRow, names: Sequence[str], offset: float, look: tuple[str, str]) -> None:
    shown = [name for name in names if name in row.cells and row.cells[name].role != "baseline"]
    for number, name in enumerate(shown):
        _dot(panel, row, name, names.index(name) + offset, look, label=None if number else _heads(row))


def _baseline_dot(panel: Axes, comparison: Comparison, names: Sequence[str]) -> None:
    row = next((row for row in comparison.rows if BASELINE in row.cells), None)
    if row is not None:
        panel.axvline(row.cells[BASELINE].value, color=GREY, linewidth=1, zorder=1)
        _dot(panel, row, BASELINE, names.index(BASELINE), (INK, "s"), label=BASELINE)


def _dot(panel: Axes, row: HeadRow, name: str, line: float, look: tuple[str, str], *, label: str | None) -> None:
    cell = row.cells[name]
    drawn = panel.errorbar(
        [cell.value], [line], xerr=[bar_length(cell.se)], color=look[0], marker=look[1], markersize=5, capsize=2,
        linestyle="none", label=label,
    )  # fmt: skip
    marked(drawn.get_children(), f"{name}, {_heads(row)}: {cell.value:.1f}", **_facets(row, name))


def _by_score(comparison: Comparison) -> list[str]:
    """Columns that have a figure, the highest mean first."""
    cells = grouped(((name, cell.value) for _, name, cell in comparison.cells()), lambda pair: pair[0])
    return sorted(cells, key=lambda name: -fmean(value for _, value in cells[name]))


def differences(comparison: Comparison, folder: Path) -> Figure | None:
    """Paired differences to all heads with their intervals: a line per strategy, a panel per budget; None without any.

    The head counts of a strategy lie below each other, in the order of the legend.
    """
    found = [(row, name, pair) for row, name, cell in comparison.cells() if (pair := cell.against_baseline)]
    if not found:
        return None
    names = [name for name in comparison.columns if any(name == other for _, other, _ in found)]
    path = folder / f"{comparison.slug}-differences.png"
    with matplotlib.rc_context(STYLE):
        _draw_differences(comparison, found, names, path)
    heads = list(dict.fromkeys(row.head_label for row, _, _ in found))
    order = f" Lines of a strategy, from above: {', '.join(heads)} heads." if len(heads) > 1 else ""
    caption = f"{comparison.title}: paired differences to all heads, with 95% intervals.{order} {SIGNS}"
    return Figure(path, caption, comparison.slug)


def _draw_differences(
    comparison: Comparison, found: Sequence[tuple[HeadRow, str, Difference]], names: Sequence[str], path: Path
) -> None:
    budgets = grouped(found, lambda one: one[0].budget)
    heads = list(dict.fromkeys(row.heads for row, _, _ in found))
    canvas = new_canvas(max(5.0, 2.2 + 2.2 * len(budgets)), 1.4 + (0.16 + 0.08 * len(heads)) * len(names))
    panels = canvas.subplots(1, len(budgets), squeeze=False, sharey=True, sharex=True)[0]
    for panel, (budget, members) in zip(panels, budgets.items(), strict=True):
        zero_line(panel)
        for row, name, pair in members:
            aside = 0.7 * ((heads.index(row.heads) + 0.5) / len(heads) - 0.5)
            told = f"{name}, {_heads(row)}, {budget}"
            interval(panel, names.index(name) + aside, pair, told, _facets(row, name), size=4)
        panel.set_title(budget)
        pale_grid(panel, "x")
    name_lines(panels[0], names, 8)
    panels[0].set_xlabel(f"{comparison.metric}, difference to all heads")
    save_all(canvas, path, seen(pair for _, _, pair in found))


def _heads(row: HeadRow) -> str:
    return "all heads" if row.heads == "all" else f"{row.head_label} heads"


def _facets(row: HeadRow, name: str) -> dict[str, str]:
    """What filters hide a cell by."""
    ids = " ".join(trial.id for trial in row.cells[name].trials)
    return {"budget": plain(row.budget), "heads": plain(row.head_label), "records": ids}
