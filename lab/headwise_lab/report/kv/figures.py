"""Figures of a KV study: perplexity against effective context, sinks, thresholds, the best runs, inverse windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import matplotlib
import numpy as np

from headwise_lab.report.grouping import grouped
from headwise_lab.report.kv.baseline import same_context
from headwise_lab.report.kv.judgement import JudgedRun, JudgedSetting, orientation, per_cent
from headwise_lab.report.kv.runs import FULL, HEAD_AWARE, PERMUTED, SCORED, TWIN, UNIFORM, WINDOW, KvRun
from headwise_lab.report.kv.verdicts import thresholds
from headwise_lab.report.page.canvas import GREY, INK, LINES, SERIES, STYLE, Figure, marked, new_canvas, save_all
from headwise_lab.report.page.drawing import (
    SIGNS,
    bar_length,
    below,
    interval,
    name_lines,
    pale_grid,
    seen,
    zero_line,
)  # fmt: skip
from headwise_lab.report.page.facets import of_record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

LOOKS = {
    "A": (SERIES[1], "v"), "B": (SERIES[2], "o"), "G": (SERIES[0], "s"), "I": (SERIES[3], "D"), "J": (SERIES[4], "^"),
    "K": (SERIES[5], "P"), "allocated": (SERIES[4], "X"), "score": (SERIES[3], "h"), "permuted": (GREY, "."),
    "full": (INK, "*"),
}  # fmt: skip
"""Colour and marker of each group of runs."""

_LABELS = {
    "A": "A: window, no sinks", "B": "B: StreamingLLM", "G": "G: by confidence", "I": "I: inverse",
    "J": "J: small gathering", "K": "K: uniform, as head-aware", "allocated": "allocated by attention mass",
    "score": "score-based", "permuted": "permuted over heads", "full": "full cache",
}  # fmt: skip
_GROUPS = {FULL: "full", WINDOW: "A", UNIFORM: "B", TWIN: "K", PERMUTED: "permuted", SCORED: "score"}

Draw = Callable[[JudgedSetting, Path], bool]


def draw_all(judged: JudgedSetting, title: str, slug: str, folder: Path) -> list[Figure]:
    """Draw every figure for which there are runs into ``folder``."""
    wanted: list[tuple[str, Draw, str]] = [
        ("ppl-vs-context", _context, "perplexity against effective context; the line: interpolated uniform budget"),
        ("head-aware", _forest, "change of perplexity against the uniform budget at each run's own context, paired,"
         " with 95% intervals (grey band: interpolation error); small dots: the same windows shuffled over the heads."
         f" {SIGNS[:-1]}"),
        ("sink-importance", _sinks, "the same number of entries with and without sinks"),
        ("confidence-threshold", _thresholds, "perplexity by confidence threshold beside the uniform budget at each"
         " run's own context"),
        ("best-configs", _best, "the lowest perplexities, with the effective context each takes"),
        ("inverse-experiment", _inverse, "inverse and conventional windows, each beside the uniform budget at its own"
         " context"),
    ]  # fmt: skip
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, draw, caption in wanted:
            path = folder / f"{slug}-{name}.png"
            if draw(judged, path):
                drawn.append(Figure(path, f"{title}: {caption}.", slug))
    return drawn


def group_of(one: JudgedRun) -> str:
    """The key of a run's colour: its group in the study where it has one, else the group of its strategy."""
    if one.run.group in LOOKS:
        return one.run.group
    if one.run.part != HEAD_AWARE:
        return _GROUPS[one.run.part]
    by_name = {"confidence_windows": "G", "head_windows": "I" if orientation(one.run) == "inverse" else "J"}
    return by_name.get(one.run.strategy.name, "allocated")


def _context(judged: JudgedSetting, path: Path) -> bool:
    canvas = new_canvas(8.2, 4.8)
    panel = canvas.subplots()
    _curve(panel, judged)
    by_group = grouped(judged.judgements, group_of)
    for group in LOOKS:
        if group in by_group and group != "full":
            _group_dots(panel, group, by_group[group])
    if full := judged.first(FULL):
        panel.axhline(full.run.ppl, color=INK, linestyle=":", linewidth=1.2, label=_LABELS["full"])
    _log_axes(panel, [one.run.context for one in judged.judgements if one.run.part != FULL])
    panel.set(xlabel="effective context: entries per KV head, mean", ylabel="perplexity")
    pale_grid(panel, "y", "both")
    below(canvas, [panel])
    save_all(canvas, path, _note(judged))
    return True


def _group_dots(panel: Axes, group: str, members: Sequence[JudgedRun]) -> None:
    small = group == "permuted"
    colour, marker = LOOKS[group]
    for number, one in enumerate(members):
        drawn = panel.errorbar(
            [one.run.context], [one.run.ppl], yerr=None if small else [bar_length(one.run.ppl_se)], linestyle="none",
            marker=marker, markersize=4 if small else 5, elinewidth=0.6, color=colour, zorder=2 if small else 3,
            label=None if number else _LABELS[group],
        )  # fmt: skip
        _marked(drawn.get_children(), one.run, f"{one.run.ppl:.4g}")


def _marked(parts: Iterable[Artist | None], run: KvRun, value: str) -> None:
    """Say which run parts of a picture show, and what filters hide them by."""
    marked(parts, f"{run.name}, {run.context:.0f} entries: {value}", **_facets(run))


def _facets(run: KvRun) -> dict[str, str]:
    return {"budget": "\n".join(of_record(run.record).budget), "records": run.id}


def _note(judged: JudgedSetting) -> str:
    """How many blocks of tokens the differences stand on, and the smallest change that could have been seen."""
    found = [one.to_uniform for one in judged.judgements if one.verdict]
    return seen(found, "blocks of tokens", lambda nats: f"{per_cent(nats):.2g}% of perplexity")


def _curve(panel: Axes, judged: JudgedSetting) -> None:
    """The interpolated uniform budget: straight lines in log perplexity over log context."""
    contexts = judged.curve.contexts
    if len(contexts) > 1:
        panel.plot(contexts, np.exp(judged.curve.losses), color=LOOKS["B"][0], linewidth=1.4, zorder=1)


def _log_axes(panel: Axes, contexts: Sequence[float]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    low, high = min(contexts, default=1), max(contexts, default=2)
    ticks = [2**power for power in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.yaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
    panel.yaxis.set_minor_formatter(matplotlib.ticker.LogFormatter(minor_thresholds=(1.2, 0.6)))


def _forest(judged: JudgedSetting, path: Path) -> bool:
    """Differences to the baseline, a line per run, with the permuted controls of the run."""
    shown = [one for one in judged.of(HEAD_AWARE, SCORED, TWIN) if one.to_uniform]
    if not shown:
        return False
    canvas = new_canvas(7.4, 1.3 + 0.24 * len(shown))
    panel = canvas.subplots()
    zero_line(panel)
    for line, one in enumerate(shown):
        error = per_cent(one.to_uniform.allowance or 0.0) if one.to_uniform else 0.0
        panel.barh(line, 2 * error, left=-error, height=0.8, color=LINES, zorder=0)
        _controls(panel, line, one, judged)
        _dot(panel, line, one)
    name_lines(panel, [f"{one.run.name}  ({one.run.context:.0f})" for one in shown], 8)
    panel.set_xlabel("perplexity against the uniform budget at the same effective context, % (left: better)")
    pale_grid(panel, "x")
    save_all(canvas, path, _note(judged))
    return True


def _dot(panel: Axes, line: int, one: JudgedRun) -> None:
    found = one.to_uniform
    if found:
        value, low, high = map(per_cent, (found.value, found.low, found.high))
        shown = attrs.evolve(found, value=value, low=low, high=high, allowance=found.allowance if one.verdict else None)
        interval(panel, line, shown, one.run.name, _facets(one.run))


def _controls(panel: Axes, line: int, one: JudgedRun, judged: JudgedSetting) -> None:
    ids = {run.id for run in one.controls}
    found = [other.to_uniform.value for other in judged.of(PERMUTED) if other.run.id in ids and other.to_uniform]
    if found:
        panel.plot(list(map(per_cent, found)), [line + 0.18] * len(found), ".", markersize=5, color=GREY, zorder=2)


def _sinks(judged: JudgedSetting, path: Path) -> bool:
    pairs = [
        (one.run, uniform)
        for one in judged.of(WINDOW)
        for uniform in judged.curve.runs
        if same_context(one.run.context, uniform.context)
    ]
    if not pairs:
        return False
    canvas = new_canvas(5.6, 3.6)
    panel = canvas.subplots()
    _sink_bars(panel, pairs)
    panel.set_xticks(range(len(pairs)), [f"{window.context:.0f} entries" for window, _ in pairs])
    panel.margins(y=0.25)  # room for the legend above the bars
    panel.set_ylabel("perplexity")
    pale_grid(panel, "y")
    panel.legend(fontsize=8)
    save_all(canvas, path, _note(judged))
    return True


def _sink_bars(panel: Axes, pairs: Sequence[tuple[KvRun, KvRun]]) -> None:
    """Two bars for each (run without sinks, uniform run), and the change between them."""
    for place, group in enumerate(("A", "B")):
        runs = [pair[place] for pair in pairs]
        panel.bar(np.arange(len(pairs)) + 0.38 * (place - 0.5), [run.ppl for run in runs], 0.36, color=LOOKS[group][0],
                  ecolor=INK, yerr=[bar_length(run.ppl_se) for run in runs], capsize=3,
                  label=_LABELS[group])  # fmt: skip
    for place, (window, uniform) in enumerate(pairs):
        change, top = 100 * (window.ppl / uniform.ppl - 1), window.ppl + bar_length(window.ppl_se)
        panel.text(place - 0.19, top, f"{change:+.0f} %", ha="center", va="bottom", fontsize=8)


def _thresholds(judged: JudgedSetting, path: Path) -> bool:
    """One panel per base window."""
    bases = thresholds(judged)
    if not bases:
        return False
    canvas = new_canvas(max(4.6, 4.1 * len(bases)), 3.7)
    panels = canvas.subplots(1, len(bases), squeeze=False)[0]
    for panel, (base, runs) in zip(panels, bases.items(), strict=True):
        _threshold_lines(panel, runs)
        panel.set_title(f"base window {base}")
        panel.set_xlabel("confidence threshold (grey: effective context)")
        pale_grid(panel, "y")
    panels[0].set_ylabel("perplexity")
    panels[0].legend(fontsize=8)
    save_all(canvas, path, _note(judged))
    return True


def _threshold_lines(panel: Axes, runs: Sequence[tuple[float, JudgedRun]]) -> None:
    panel.plot([threshold for threshold, _ in runs], [one.run.ppl for _, one in runs], "o-", color=LOOKS["G"][0],
               label="by confidence")  # fmt: skip
    known = [(threshold, one.baseline.ppl) for threshold, one in runs if one.baseline]
    panel.plot([at for at, _ in known], [ppl for _, ppl in known], "s--", color=LOOKS["B"][0], markersize=3.5,
               label="uniform, same context")  # fmt: skip
    for threshold, one in runs:
        panel.annotate(f"{one.run.context:.0f}", (threshold, one.run.ppl), textcoords="offset points",
                       xytext=(0, 5), ha="center", fontsize=7, color=GREY)  # fmt: skip


def _best(judged: JudgedSetting, path: Path, most: int = 12) -> bool:
    shown = sorted(
        (one for one in judged.judgements if one.run.part not in (PERMUTED, FULL) and not one.same_as),
        key=lambda one: one.run.ppl,
    )[:most]
    if not shown:
        return False
    _bars(shown, path, _note(judged))
    return True


def _bars(shown: Sequence[JudgedRun], path: Path, note: str) -> None:
    """The perplexity of each run, and a tick at the perplexity of the uniform budget of the same context."""
    canvas = new_canvas(7.2, 1.2 + 0.29 * len(shown))
    panel = canvas.subplots()
    for line, one in enumerate(shown):
        colour, marker = LOOKS[group_of(one)]
        drawn = panel.errorbar([one.run.ppl], [line], xerr=[bar_length(one.run.ppl_se)], marker=marker, markersize=5,
                               capsize=2, color=colour, zorder=3)  # fmt: skip
        _marked(drawn.get_children(), one.run, f"{one.run.ppl:.4g}")
        if one.baseline and one.run.part != UNIFORM:
            panel.plot([one.baseline.ppl], [line], marker="|", markersize=13, markeredgewidth=2, color=LOOKS["B"][0])
    name_lines(panel, [f"{one.run.name}  ({one.run.context:.0f})" for one in shown], 8)
    panel.set_xlabel("perplexity (tick: uniform budget at the same context; in brackets: effective context)")
    pale_grid(panel, "x")
    save_all(canvas, path, note)


def _inverse(judged: JudgedSetting, path: Path) -> bool:
    shown = [one for one in judged.of(HEAD_AWARE) if orientation(one.run) and one.to_uniform]
    shown.sort(key=lambda one: (orientation(one.run) != "inverse", one.run.context))
    if not any(orientation(one.run) == "inverse" for one in shown):
        return False
    _bars(shown, path, _note(judged))
    return True
