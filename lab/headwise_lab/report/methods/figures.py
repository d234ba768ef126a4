"""Figures of methods: scores by processed tokens, paired differences to the reference, scores by measured time."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import attrs
import matplotlib

from headwise_lab.report.grouping import grouped
from headwise_lab.report.heads.efficiency import cost_of
from headwise_lab.report.methods.methods import CONTROLS, REFERENCE, MethodResult, Methods, ranked
from headwise_lab.report.methods.tables import MeanShare, order, shares
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
from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import Difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Look = tuple[str, str]
"""A colour and a marker."""

LEADING = len(page.SERIES)
"""So many methods have a colour; it follows from their scores over all benchmarks."""

_WIDTH = 32  # letters in a line of the legend
_CONTROL_MARKERS = ("x", "+", "1", "2", "*")
_TIMED = (
    "Whole prefill of a question, vision tower included, timed in turns with the unpruned model on the same batches"
    " (medians). Points are not joined, because times are noisy. Bars along time: from the lowest to the highest ratio"
    " of the batches, where records tell it; bars along the score: one standard error."
)


@attrs.frozen
class Point:
    """A result in a picture: its method, where it lies with its errors, and the facets by which filters hide it."""

    name: str
    x: float
    y: float
    se: float
    budget: str
    records: str
    reach: tuple[float, float] | None = None


def looks(compared: Sequence[Methods]) -> dict[str, Look]:
    """Method -> how it looks in every figure of a report: controls in grey, the reference in the colour of letters."""
    scores = ((name, one.results[name, budget].trial.value) for one in compared for name, budget in one.results)
    names = ranked(sorted(scores))
    controls = dict(zip((name for name in names if name in CONTROLS), _CONTROL_MARKERS, strict=False))
    others = (name for name in names if name not in (*CONTROLS, REFERENCE))
    return {
        REFERENCE: (INK, "o"),
        **{name: (GREY, marker) for name, marker in controls.items()},
        **dict(zip(others, page.looks(), strict=False)),
    }


def draw_all(methods: Methods, chosen: Mapping[str, Look], folder: Path) -> list[Figure]:
    """The figures of one benchmark that there is something for, the main one first."""
    drawn = (draw_scores(methods, chosen, folder), differences(methods, folder), draw_times(methods, chosen, folder))
    return [figure for figure in drawn if figure is not None]


def draw_scores(methods: Methods, chosen: Mapping[str, Look], folder: Path) -> Figure:
    """Score against processed tokens, which are counted and exact, so that the budgets of a method may be joined."""
    points = [_point(result, result.trial.processed) for result in methods.results.values()]
    path = folder / f"{methods.slug}-scores.png"
    _plot(points, chosen, path, label=methods.metric, whole=_whole(methods), note=seen(methods.family()))
    return Figure(
        path, f"{methods.title}: {methods.metric} against visual tokens processed per layer. {_JOINED}", methods.slug
    )


_JOINED = "Lines join the budgets of a method; pale lines: the methods that are not named. Bars: one standard error."


def _whole(methods: Methods) -> float | None:
    return methods.unpruned.value if methods.unpruned else None


def _point(result: MethodResult, x: float, reach: tuple[float, float] | None = None) -> Point:
    trial = result.trial
    return Point(result.name, x, trial.value, trial.se or 0.0, plain(result.budget), " ".join(result.records), reach)


def differences(methods: Methods, folder: Path) -> Figure | None:
    """The paired difference of each method to the reference, with its interval, in a panel per budget."""
    judged = [result for result in methods.results.values() if result.to_reference]
    names = [name for name in methods.names if any(result.name == name for result in judged)]
    if not judged:
        return None
    path = folder / f"{methods.slug}-differences.png"
    budgets = grouped(judged, lambda result: result.budget)
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(max(5.0, 2.4 + 2.2 * len(budgets)), 1.3 + 0.21 * len(names))
        panels = canvas.subplots(1, len(budgets), squeeze=False, sharey=True, sharex=True)[0]
        for panel, (budget, results) in zip(panels, budgets.items(), strict=True):
            zero_line(panel)
            for result in results:
                assert result.to_reference is not None
                interval(panel, names.index(result.name), result.to_reference, f"{result.name}, {budget}",
                         {"budget": plain(budget), "records": " ".join(result.records)})  # fmt: skip
            panel.set_title(budget)
            pale_grid(panel, "x")
        name_lines(panels[0], names, 8)
        panels[0].set_xlabel(f"{methods.metric}, difference to {REFERENCE}")
        save_all(canvas, path, seen(result.to_reference for result in judged))
    caption = f"{methods.title}: paired differences to {REFERENCE} at the same budget, with 95% intervals. {SIGNS}"
    return Figure(path, caption, methods.slug)


def draw_times(methods: Methods, chosen: Mapping[str, Look], folder: Path) -> Figure | None:
    """Score against measured prefill time on one benchmark; None where nothing was timed."""
    found = [(result, cost_of(result.trial).prefill_share) for result in methods.results.values()]
    points = [_point(result, share, _reach([result.trial])) for result, share in found if share is not None]
    if not points:
        return None
    path = folder / f"{methods.slug}-prefill.png"
    _plot(points, chosen, path, label=methods.metric, whole=_whole(methods), note=seen(methods.family()), timed=True)
    return Figure(path, f"{methods.title}: {methods.metric} against measured prefill time. {_TIMED}", methods.slug)


def _reach(trials: Sequence[Trial]) -> tuple[float, float] | None:
    """How far the ratios of the timed batches reach below and above the median of the trials; None where unknown."""
    costs = [cost_of(trial) for trial in trials]
    ratios = [(one.prefill_share_low, one.prefill_share_high) for one in costs]
    lows, highs = ([end for end in ends if end is not None] for ends in zip(*ratios, strict=True))
    shares = [one.prefill_share for one in costs if one.prefill_share is not None]
    if not (lows and highs and shares):
        return None
    return median(shares) - min(lows), max(highs) - median(shares)


def draw_overview(compared: Sequence[Methods], chosen: Mapping[str, Look], folder: Path) -> list[Figure]:
    """The mean share of the unpruned model's scores: against processed tokens, then against prefill time."""
    found = shares(compared)
    names = ", ".join(one.benchmark for one in compared)
    what = f"Mean score over {names}, in per cent of the unpruned model's,"
    label, note = "score, % of the unpruned model's", seen(_to_unpruned(compared))
    named, drawn = {name: chosen[name] for name in order(found)}, []
    if points := [_mean(share, compared, _processed(share, compared)) for share in found]:
        path = folder / "methods-scores.png"
        _plot(points, named, path, label=label, whole=100.0, note=note)
        drawn.append(Figure(path, f"{what} against visual tokens processed per layer. {_JOINED}", "methods-overview"))
    if timed := [_mean(share, compared, share.prefill, timed=True) for share in found if share.prefill is not None]:
        path = folder / "methods-prefill.png"
        _plot(timed, named, path, label=label, whole=100.0, note=note, timed=True)
        drawn.append(
            Figure(path, f"{what} against measured prefill time (median over benchmarks). {_TIMED}", "methods-overview")
        )
    return drawn


def _to_unpruned(compared: Sequence[Methods]) -> Iterator[Difference]:
    """The differences to the unpruned model in per cent of its score."""
    for one in compared:
        assert one.unpruned is not None
        ratio = 100 / one.unpruned.value
        for result in one.results.values():
            if (pair := result.to_unpruned) is not None:
                yield attrs.evolve(pair, value=ratio * pair.value, se=ratio * pair.se)


def _processed(share: MeanShare, compared: Sequence[Methods]) -> float:
    return sum(one.results[share.name, share.budget].trial.processed for one in compared) / len(compared)


def _mean(share: MeanShare, compared: Sequence[Methods], x: float, *, timed: bool = False) -> Point:
    results = [one.results[share.name, share.budget] for one in compared]
    ids = " ".join(record for result in results for record in result.records)
    reach = _reach([result.trial for result in results]) if timed else None
    return Point(share.name, x, share.value, share.se, plain(share.budget), ids, reach)


def _plot(
    points: Sequence[Point], chosen: Mapping[str, Look], path: Path, *, label: str, whole: float | None, note: str,
    timed: bool = False,
) -> None:  # fmt: skip
    """Draw all points, a line at ``whole``, the score of the unpruned model, and the legend into ``path``."""
    by_name = grouped(points, lambda point: point.name)
    coloured = [name for name in chosen if name not in (*CONTROLS, REFERENCE)][:LEADING]
    records = {textwrap.fill(name, _WIDTH): " ".join(one.records for one in found) for name, found in by_name.items()}
    with matplotlib.rc_context(STYLE):
        canvas = new_canvas(8.4, 5.0)
        panel = canvas.subplots()
        for name in (one for one in chosen if one in by_name):
            found = sorted(by_name[name], key=lambda point: point.x)
            _method(panel, found, chosen[name], named=name in (*coloured, *CONTROLS, REFERENCE), timed=timed)
        unpruned_line(panel, whole)
        panel.set_xlabel(
            "prefill time, as a share of the unpruned model's" if timed else "visual tokens per layer, mean"
        )
        panel.set_ylabel(label)
        if not timed and (low := min(one.x for one in points)) > 0.9 * (high := max(one.x for one in points)):
            panel.set_xlim(0.85 * low, 1.15 * high)  # one budget, and not a range of fractions of a token
        pale_grid(panel, "both")
        below(canvas, [panel], records)
        save_all(canvas, path, note)


def _method(panel: Axes, points: Sequence[Point], look: Look, *, named: bool, timed: bool) -> None:
    """One method: a point with its errors for each budget, joined unless the axis is a measured time."""
    colour, marker = look if named else (GREY, look[1])
    first = points[0].name == REFERENCE
    if not timed:
        (line,) = panel.plot(
            [one.x for one in points], [one.y for one in points], color=colour, alpha=0.9 if named else 0.3,
            linewidth=2 if first else 1, zorder=2 if named else 1,
        )  # fmt: skip
        marked([line], points[0].name, records=" ".join(one.records for one in points))
    for number, one in enumerate(points):
        drawn = panel.errorbar(
            [one.x], [one.y], yerr=[bar_length(one.se)] if named else None,
            xerr=None if one.reach is None or not named else [[max(0.0, end)] for end in one.reach],
            color=colour, marker=marker, markersize=6 if named else 3.5, capsize=2, elinewidth=0.8, linestyle="none",
            alpha=1 if named else 0.55, zorder=3 if first else 2,
            label=textwrap.fill(one.name, _WIDTH) if named and not number else None,
        )  # fmt: skip
        marked(drawn.get_children(), f"{one.name}, {one.budget}: {one.y:.1f}", budget=one.budget, records=one.records)
