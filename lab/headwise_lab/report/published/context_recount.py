"""Recounting tables of perplexity against effective context: every run at the uniform budget of its own context.

Tables give perplexities alone, so the perplexity of the uniform runs is interpolated linearly in log2(context), and
there are no paired errors. What a difference has to exceed is therefore a yardstick from the tables themselves: the
interpolation error, and what head-aware runs with equal windows (which are uniform) miss the curve by.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.report.kv.runs import FULL, HEAD_AWARE, PERMUTED, SCORED, TWIN, UNIFORM, WINDOW
from headwise_lab.report.published.context_claims import context_claims
from headwise_lab.report.published.context_tables import ContextRow, ContextTable, context_tables
from headwise_lab.report.published.score_tables import read_text
from headwise_lab.stats.interpolation import interpolation_error, left_out, place

_TOKENS = re.compile(r"(?:评估\s*tokens|evaluated tokens|tokens evaluated)\s*[:：]\s*(\d+)", re.IGNORECASE)


@attrs.frozen
class MatchedRun:
    """A run against the uniform budget at its own context, in per cent of perplexity; below 0 is better.

    ``verdict``: better or worse where ``delta`` exceeds the ``yardstick``, else within it.
    """

    name: str
    part: str
    context: float
    ppl: float
    uniform: float
    delta: float
    yardstick: float

    @property
    def verdict(self) -> str:
        """``uniform itself``, ``better``, ``worse`` or ``within``."""
        if self.part == TWIN:
            return "uniform itself"
        if abs(self.delta) <= self.yardstick:
            return "within"
        return "better" if self.delta < 0 else "worse"


@attrs.frozen
class SinkPair:
    """A run without sinks against the uniform run of the same context, in per cent of perplexity."""

    context: float
    without: float
    uniform: float
    change: float


@attrs.frozen
class Accuracies:
    """Accuracies of a document: n, the binomial standard error, and the largest difference to a uniform run."""

    n: int
    error: float
    largest: float
    pairs: int
    beyond: int


@attrs.frozen
class ContextRecount:
    """A document's KV tables, counted again; ``differences`` are claims that do not hold as they stand."""

    runs: int
    matched: tuple[MatchedRun, ...]
    unmatched: tuple[str, ...]
    left_out: Mapping[str, float]
    sinks: tuple[SinkPair, ...]
    differences: tuple[str, ...]
    holding: tuple[str, ...]
    accuracies: Accuracies | None
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain data for ``--json``."""
        return {
            **attrs.asdict(self),
            "matched": [{**attrs.asdict(one), "verdict": one.verdict} for one in self.matched],
        }


def recount_contexts(path: Path, n: int | None = None) -> ContextRecount | None:
    """Read a document and count its KV tables again; None where it has none.

    ``n``: tokens its accuracies are over; by default what the document says.
    """
    text = read_text(path)
    tables = context_tables(text, str(path))
    return count_contexts(tables, text, n) if tables else None


def count_contexts(tables: Sequence[ContextTable], text: str, n: int | None = None) -> ContextRecount:
    """Everything there is to say about the tables and the claims made with them."""
    runs, disagreements = merged(tables)
    matched, unmatched = match(runs)
    told = context_claims(text, tables, runs, {one.name: one.delta for one in matched})
    found = _TOKENS.search(text)
    count = n if n is not None else int(found[1]) if found else None
    return ContextRecount(
        runs=len(runs),
        matched=tuple(matched),
        unmatched=tuple(unmatched),
        left_out=_left_out(_uniform(runs)),
        sinks=tuple(sink_pairs(runs)),
        differences=(*disagreements, *told.differences),
        holding=told.holding,
        accuracies=_accuracies(tables, count) if count else None,
        missing=tuple(_missing(runs)),
    )


def merged(tables: Sequence[ContextTable]) -> tuple[list[ContextRow], list[str]]:
    """Each run once, with the context printed most exactly; and a sentence for each that is printed two ways."""
    groups: dict[str, list[ContextRow]] = {}
    for row in (row for table in tables for row in table.rows):
        groups.setdefault(row.name, []).append(row)
    differences = [
        f"{name} is printed as {_printed(first)} in line {first.line} and as {_printed(row)} in line {row.line}"
        for name, (first, *others) in groups.items()
        for row in others
        if not _agree(first, row)
    ]
    return [max(rows, key=lambda row: -int(row.context.as_tuple().exponent)) for rows in groups.values()], differences


def _printed(row: ContextRow) -> str:
    return f"PPL {row.ppl} at {row.context}"


def _agree(one: ContextRow, other: ContextRow) -> bool:
    """Whether two lines can be of the same run, each figure taken as exact as it is printed."""
    return all(
        abs(ours - theirs) <= max(_half_unit(ours), _half_unit(theirs))
        for ours, theirs in ((one.ppl, other.ppl), (one.context, other.context))
    )


def _half_unit(figure: Any) -> Any:
    return type(figure)((0, (5,), int(figure.as_tuple().exponent) - 1))


def _uniform(runs: Sequence[ContextRow]) -> list[ContextRow]:
    return sorted((row for row in runs if row.part == UNIFORM), key=lambda row: row.context)


def match(runs: Sequence[ContextRow]) -> tuple[list[MatchedRun], list[str]]:
    """Every run that is no uniform run against the interpolated curve; and why some are against nothing."""
    curve = _uniform(runs)
    contexts, values = [float(row.context) for row in curve], [float(row.ppl) for row in curve]
    found: list[tuple[MatchedRun, float]] = []
    refused = []
    for row in (row for row in runs if row.part in (HEAD_AWARE, SCORED, TWIN, PERMUTED)):
        at = place(contexts, float(row.context))
        if at is None:
            refused.append(f"{row.name} ({row.context}) lies outside the uniform runs; nothing is extrapolated")
            continue
        uniform = (1 - at.share) * values[at.left] + at.share * values[at.right]
        error = 100 * (interpolation_error(contexts, values, at) or 0.0) / uniform
        delta = 100 * (float(row.ppl) / uniform - 1)
        found.append((MatchedRun(row.name, row.part, float(row.context), float(row.ppl), uniform, delta, 0.0), error))
    twins = [abs(one.delta) for one, _ in found if one.part == TWIN]
    matched = [attrs.evolve(one, yardstick=max([error, *twins])) for one, error in found]
    return sorted(matched, key=lambda one: one.context), refused


def _left_out(curve: Sequence[ContextRow]) -> dict[str, float]:
    """Uniform run -> per cent by which its perplexity is missed when it is left out."""
    errors = left_out([float(row.context) for row in curve], [float(row.ppl) for row in curve])
    return {row.name: 100 * error / float(row.ppl) for row, error in zip(curve[1:-1], errors, strict=True)}


def sink_pairs(runs: Sequence[ContextRow]) -> list[SinkPair]:
    """Runs without sinks beside the uniform run of the same context, the largest context first."""
    uniform = {row.context: row for row in _uniform(runs)}
    pairs = [(row, uniform[row.context]) for row in runs if row.part == WINDOW and row.context in uniform]
    return [
        SinkPair(float(row.context), float(row.ppl), float(other.ppl), 100 * (float(row.ppl / other.ppl) - 1))
        for row, other in sorted(pairs, key=lambda pair: -pair[0].context)
    ]


def _accuracies(tables: Sequence[ContextTable], n: int) -> Accuracies | None:
    """Differences between head-aware runs and the uniform run of the same table, against binomial noise."""
    gaps, values = [], []
    for table in tables:
        uniform = [row.accuracy for row in table.rows if row.part == UNIFORM and row.accuracy is not None]
        others = [
            row.accuracy for row in table.rows if row.part in (HEAD_AWARE, TWIN, SCORED) and row.accuracy is not None
        ]
        values += [float(value) for value in (*uniform, *others)]
        if len(uniform) == 1:
            gaps += [float(value - uniform[0]) for value in others]
    if not gaps:
        return None
    share = sum(values) / len(values) / 100
    if not 0 <= share <= 1:
        raise DataError(f"accuracies of {100 * share:g} on average are not in percent; give --n for shares only")
    error = 100 * math.sqrt(share * (1 - share) / n)
    beyond = sum(abs(gap) > 2 * math.sqrt(2) * error for gap in gaps)
    return Accuracies(n, error, max(gaps, key=abs), len(gaps), beyond)


def _missing(runs: Sequence[ContextRow]) -> list[str]:
    """What a reader would need and the tables do not have."""
    parts = {row.part for row in runs}
    told = []
    if FULL not in parts:
        told.append("the full cache: nothing says what eviction costs at all")
    if PERMUTED not in parts and HEAD_AWARE in parts:
        told.append("windows permuted at random over heads: nothing says that the head classes matter")
    if not any(row.error for row in runs):
        told.append("standard errors: nothing says which differences are noise")
    return told
