"""A comparison side by side as a grid, as the lines above and below it, and as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.table import Table
from rich.text import Text

from headwise_lab.report.grid import Grid, Mark, markdown, markdown_text
from headwise_lab.report.inference import CONFIDENCE
from headwise_lab.report.side_by_side import Pair
from headwise_lab.report.statistics import LEVEL

METHOD = (
    f"Figures are means over the questions both sides share, ± SE; the difference is paired, with its {CONFIDENCE:.0%}"
    " interval (BCa bootstrap). p is McNemar's exact test where answers are right or wrong, else the bootstrap's; Holm"
    f" corrects it over the table. A difference is called one where that is at most {LEVEL:.3f}."
)
_STYLES = {"better": "green", "worse": "red", "no difference": "dim"}
_SHARED = ("A", "B", "B - A ± SE", f"{CONFIDENCE:.0%} interval", "n", "p", "Holm p", "")


def grid(pairs: Sequence[Pair]) -> Grid:
    """One row per pair: what tells the rows apart, both figures, the difference and what it is worth."""
    names = _varying(pairs)
    header = [_heading(name) for name in names]
    rows: list[list[str | Mark]] = [[*(_label(pair, name) for name in names), *_figures(pair)] for pair in pairs]
    return Grid.of("Side by side", "side-by-side", [*header, *_SHARED], rows, METHOD)


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _label(pair: Pair, name: str) -> str:
    return pair.key[name] if name in pair.key else " → ".join(pair.apart.get(name, ("", "")))


def _varying(pairs: Sequence[Pair]) -> list[str]:
    """Benchmark, and every other field in which rows differ: of the keys, then of what sets left and right apart."""
    names = dict.fromkeys(name for pair in pairs for name in (*pair.key, *pair.apart))
    return ["benchmark", *(n for n in names if n != "benchmark" and len({_label(pair, n) for pair in pairs}) > 1)]


def _figures(pair: Pair) -> list[str | Mark]:
    found = pair.comparison
    sign = {"no difference": "same"}.get(pair.verdict, pair.verdict)
    digits = 4 if pair.lower_is_better else 2
    return [
        _with_error(*pair.left, digits),
        _with_error(*pair.right, digits),
        Mark(f"{found.difference:+.{digits}f} ± {found.se:.{digits}f}", verdict=sign),
        "-" if math.isnan(found.low) else f"{found.low:+.{digits}f} to {found.high:+.{digits}f}",
        str(found.n),
        _probability(found.probability),
        _probability(pair.adjusted),
        pair.verdict,
    ]


def _with_error(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} ± {'-' if math.isnan(error) else f'{error:.{digits}f}'}"


def _probability(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def heading(pairs: Sequence[Pair], left: str, right: str) -> list[str]:
    """What A and B are, what all rows share, and what sets the sides apart in all of them."""
    varying = set(_varying(pairs))
    metrics = dict.fromkeys(f"{p.metric}{', lower is better' if p.lower_is_better else ''}" for p in pairs)
    same = [f"{name}={value}" for name, value in pairs[0].key.items() if name not in varying]
    apart = [f"{name} {ours} → {theirs}" for name, (ours, theirs) in pairs[0].apart.items() if name not in varying]
    lines = [f"A: {left}", f"B: {right}", f"Scores: {', '.join(metrics)}"]
    lines += [f"Same in every row: {', '.join(same)}"] if same else []
    return lines + ([f"Apart in every row, A → B: {', '.join(apart)}"] if apart else [])


def page(pairs: Sequence[Pair], left: str, right: str) -> str:
    """The Markdown page."""
    lines = [f"* {markdown_text(line)}" for line in heading(pairs, left, right)]
    return "\n".join(["# Side by side", "", *lines, "", markdown(grid(pairs)), "", METHOD, ""])


def terminal(pairs: Sequence[Pair]) -> Table:
    """The table a terminal shows."""
    found = grid(pairs)
    table = Table(box=None, pad_edge=False, header_style="bold")
    labels = len(found.header) - len(_SHARED)
    for index, name in enumerate(found.header):
        table.add_column(name, justify="left" if index < labels or not name else "right", no_wrap=True)
    for row, pair in zip(found.rows, pairs, strict=True):
        table.add_row(*(Text(mark.text, style=_STYLES[pair.verdict] if mark.verdict else "") for mark in row))
    return table


def as_dict(pair: Pair) -> dict[str, Any]:
    """Everything about a pair as JSON has it: NaN is null."""
    told: Mapping[str, Any] = attrs.asdict(pair.comparison)
    return {
        **pair.key,
        "left": list(pair.ids[0]),
        "right": list(pair.ids[1]),
        "apart": {name: list(values) for name, values in pair.apart.items()},
        "metric": pair.metric,
        "left_mean": pair.left[0],
        "right_mean": pair.right[0],
        **{name: None if isinstance(value, float) and math.isnan(value) else value for name, value in told.items()},
        "p_holm": pair.adjusted,
        "verdict": pair.verdict,
    }
