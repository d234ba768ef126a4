"""Figures of head selection: scores against processed tokens, and a heat map of the differences to all heads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from headwise_lab.report.grouping import grouped
from headwise_lab.report.heads.comparison import BASELINE, CONTROL, Cell, Comparison, HeadRow
from headwise_lab.report.page.canvas import GREY, INK, STYLE, Colour, Figure, colours, new_canvas, save_all
from headwise_lab.report.page.drawing import bar_length, name_lines, pale_grid, unpruned_line
from headwise_lab.stats.differences import Difference

if TYPE_CHECKING:
    from matplotlib.artist import Artist
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


def _looks(comparison: Comparison) -> dict[str, tuple[Colour, str]]:
    """Column -> colour and marker. Nearly equal colours get different markers; grey is for the control."""
    looks = [(colour, "o" if index < 9 else "s") for index, colour in enumerate(colours())]
    names = [name for name in comparison.columns if name not in (BASELINE, CONTROL)]
    chosen = {name: looks[index % len(looks)] for index, name in enumerate(names)}
    return {BASELINE: ("black", "o"), CONTROL: (GREY, "o"), **chosen}


def _lines(comparison: Comparison, unpruned: float | None, path: Path) -> None:
    """A panel per head count."""
    heads = grouped(comparison.rows, lambda row: row.heads)
    looks = _looks(comparison)
    canvas = new_canvas(max(5.6, 3.4 * len(heads)), 3.9)
    panels = canvas.subplots(1, len(heads), sharey=True, squeeze=False)[0]
    for panel, (count, rows) in zip(panels, heads.items(), strict=True):
        for index, name in enumerate(comparison.columns):
            _line(panel, rows, name, looks[name], _dodge(index, len(comparison.columns), comparison))
        unpruned_line(panel, unpruned)
        panel.set_title("all heads" if count == "all" else f"{rows[0].head_label} heads")
        panel.set_xlabel("visual tokens processed per layer, average")
        pale_grid(panel, "y")
    panels[0].set_ylabel(comparison.metric)
    _legend(canvas, panels)
    save_all(canvas, path)


def _dodge(index: int, count: int, comparison: Comparison) -> float:
    """A small step to the side for each strategy, so that error bars at the same budget do not hide each other."""
    budgets = sorted({row.processed for row in comparison.rows})
    gap = min((right - left for left, right in itertools.pairwise(budgets)), default=1.0)
    return (index - (count - 1) / 2) / max(count - 1, 1) * 0.22 * gap


def _line(panel: Axes, rows: Sequence[HeadRow], name: str, look: tuple[Colour, str], dodge: float) -> None:
    points = [(row.processed + dodge, row.cells[name]) for row in rows if name in row.cells]
    if not points:
        return
    colour, marker = look
    style = "--" if name == CONTROL else "-"
    panel.errorbar(
        [x for x, _ in points],
        [cell.value for _, cell in points],
        yerr=_errors([cell for _, cell in points]),
        label=name, color=colour, linestyle=style, marker=marker, markersize=3.5, capsize=2,
        linewidth=2.2 if name == BASELINE else 1.2, elinewidth=0.9, zorder=3 if name == BASELINE else 2,
    )  # fmt: skip


def _errors(cells: Sequence[Cell]) -> list[float]:
    return [bar_length(cell.se) for cell in cells]


def _legend(canvas: Canvas, panels: Sequence[Axes]) -> None:
    """One legend for all panels, below them, with the strategies of all of them."""
    entries: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    width = max(2, int(canvas.get_figwidth() // 1.7))
    canvas.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=width, fontsize=8)


def _dots(comparison: Comparison, unpruned: float | None, path: Path) -> None:
    """A line per strategy, a dot per head count."""
    heads = list(dict.fromkeys(row.heads for row in comparison.rows))
    names = _by_score(comparison)
    canvas = new_canvas(6.8, 1.3 + 0.3 * len(names) * max(1, 0.55 * len(heads)))
    panel = canvas.subplots()
    shades = matplotlib.colormaps["viridis"](np.linspace(0.1, 0.8, len(heads)))
    for index, (row, shade) in enumerate(zip(comparison.rows, shades, strict=True)):
        _row_dots(panel, row, names, (index - (len(heads) - 1) / 2) * 0.6 / len(heads), shade)
    _baseline_dot(panel, comparison, names)
    unpruned_line(panel, unpruned, "v")
    name_lines(panel, names)
    panel.set_xlabel(comparison.metric)
    pale_grid(panel, "x")
    _legend(canvas, [panel])
    save_all(canvas, path)


def _row_dots(panel: Axes, row: HeadRow, names: Sequence[str], offset: float, colour: Colour) -> None:
    shown = [(place, row.cells[name]) for place, name in enumerate(names) if name in row.cells]
    shown = [(place, cell) for place, cell in shown if cell.role != "baseline"]
    panel.errorbar(
        [cell.value for _, cell in shown], [place + offset for place, _ in shown],
        xerr=_errors([cell for _, cell in shown]), fmt="o", markersize=4.5, capsize=2, color=colour,
        label="all heads" if row.heads == "all" else f"{row.head_label} heads",
    )  # fmt: skip


def _baseline_dot(panel: Axes, comparison: Comparison, names: Sequence[str]) -> None:
    cell = next((row.cells[BASELINE] for row in comparison.rows if BASELINE in row.cells), None)
    if cell is not None:
        panel.axvline(cell.value, color="black", linewidth=1, alpha=0.5, zorder=1)
        panel.errorbar(
            [cell.value], [names.index(BASELINE)], xerr=_errors([cell]), fmt="s", markersize=5, capsize=2,
            color="black", label=BASELINE,
        )  # fmt: skip


def _by_score(comparison: Comparison) -> list[str]:
    """Columns that have a figure, the highest mean first."""
    cells = grouped(((name, cell.value) for _, name, cell in comparison.cells()), lambda pair: pair[0])
    return sorted(cells, key=lambda name: -fmean(value for _, value in cells[name]))


def heat_map(comparison: Comparison, folder: Path) -> Figure | None:
    """Differences to all heads: a line per strategy, a column per head count, a panel per budget; None without any."""
    names = [
        name for name in comparison.columns if name != BASELINE and any(name in row.cells for row in comparison.rows)
    ]
    gains = [cell.against_baseline.value for _, _, cell in comparison.cells() if cell.against_baseline]
    if not gains or not names:
        return None
    path = folder / f"{comparison.slug}-differences.png"
    with matplotlib.rc_context(STYLE):
        _draw_heat_map(comparison, names, max(1e-6, *map(abs, gains)), path)
    caption = f"{comparison.title}: difference to all heads. Pale cells with grey figures are no difference."
    return Figure(path, caption, comparison.slug)


def _draw_heat_map(comparison: Comparison, names: Sequence[str], limit: float, path: Path) -> None:
    budgets = grouped(comparison.rows, lambda row: row.budget)
    widest = max(map(len, budgets.values()))
    canvas = new_canvas(1.9 + len(budgets) * max(1.7, 0.62 * widest), 1.3 + 0.29 * len(names))
    panels = canvas.subplots(1, len(budgets), squeeze=False, sharey=True)[0]
    for panel, (budget, rows) in zip(panels, budgets.items(), strict=True):
        _heat_panel(panel, rows, names, limit)
        panel.set_title(budget)
    panels[0].set_yticks(range(len(names)), names)
    bar = canvas.colorbar(panels[-1].images[0], ax=list(panels), shrink=0.8, aspect=18)
    bar.set_label("difference to all heads", fontsize=8)
    bar.outline.set_visible(False)
    save_all(canvas, path)


def _heat_panel(panel: Axes, rows: Sequence[HeadRow], names: Sequence[str], limit: float) -> None:
    gains = np.full((len(names), len(rows)), np.nan)
    strength = np.ones_like(gains)
    for column, row in enumerate(rows):
        for line, name in enumerate(names):
            difference = row.cells[name].against_baseline if name in row.cells else None
            text, colour = "-", GREY
            if difference is not None:
                gains[line, column] = difference.value
                strength[line, column] = 1.0 if difference.clear else 0.3
                text = f"{difference.value:+.1f}"
                colour = _letters(difference, limit)
            panel.text(column, line, text, ha="center", va="center", fontsize=7.5, color=colour)
    panel.imshow(gains, cmap="RdBu", vmin=-limit, vmax=limit, alpha=strength, aspect="auto")
    labels = [row.head_label.replace("_", "_\n").replace(" (", "\n(") for row in rows]
    panel.set_xticks(range(len(rows)), labels, fontsize=8 if max(map(len, labels)) < 8 else 6.5)
    panel.set_xlabel("heads")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def _letters(difference: Difference, limit: float) -> str:
    """The colour of a figure: grey without a difference, white on a dark cell."""
    if not difference.clear:
        return GREY
    return "white" if abs(difference.value) > 0.6 * limit else INK
