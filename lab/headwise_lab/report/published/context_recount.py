"""Recounting published tables of perplexity by context: each run is compared with the uniform budget at its context.

Such tables hold no losses of single tokens. So the perplexity of the uniform runs is interpolated linearly in
log2(context), and there are no paired errors. A difference counts if it exceeds a yardstick from the tables themselves:
the larger of the interpolation error and the distance from the curve of head-aware runs with equal windows, which are
uniform runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.report.kv.runs import FULL, HEAD_AWARE, PERMUTED, SCORED, TWIN, UNIFORM, WINDOW
from headwise_lab.report.published.context_claims import context_claims, half_unit
from headwise_lab.report.published.context_tables import ContextRow, ContextTable, context_tables
from headwise_lab.report.published.score_tables import read_text
from headwise_lab.stats.interpolation import interpolation_error, left_out, place

_TOKENS = re.compile(r"(?:评估\s*tokens|evaluated tokens|tokens evaluated)\s*[:：]\s*(\d+)", re.IGNORECASE)


@attrs.frozen
class MatchedRun:
    """A run and the uniform budget at its own context; ``delta`` in per cent of perplexity, below 0 is better.

    ``yardstick``: a smaller ``delta`` counts as error.
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
    """A run without sinks and the uniform run of the same context; ``change`` in per cent of perplexity."""

    context: float
    without: float
    uniform: float
    change: float


@attrs.frozen
class Accuracies:
    """The accuracies of a document: n, their binomial standard error, and the largest difference to a uniform run."""

    n: int
    error: float
    largest: float
    pairs: int
    beyond: int


@attrs.frozen
class ContextRecount:
    """The KV tables of a document, counted again. ``differences``: claims that do not hold as they are written."""

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
    """Read a document and count its KV tables again; None where it has no such tables.

    ``n``: over how many tokens its accuracies are; by default the number in the document.
    """
    text = read_text(path)
    tables = context_tables(text, str(path))
    return count_contexts(tables, text, n) if tables else None


def count_contexts(tables: Sequence[ContextTable], text: str, n: int | None = None) -> ContextRecount:
    """The recount of the tables and of the claims about them."""
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
    """Each run once, from the line with most digits; and a sentence for each run that is printed in two ways."""
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
    """Whether two lines can be of the same run, given the digits that each prints."""
    return all(
        abs(ours - theirs) <= max(half_unit(ours), half_unit(theirs))
        for ours, theirs in ((one.ppl, other.ppl), (one.context, other.context))
    )


def _uniform(runs: Sequence[ContextRow]) -> list[ContextRow]:
    return sorted((row for row in runs if row.part == UNIFORM), key=lambda row: row.context)


def match(runs: Sequence[ContextRow]) -> tuple[list[MatchedRun], list[str]]:
    """Every run but the uniform ones compared with the interpolated curve; and why some cannot be compared."""
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
    """Uniform run -> error of the perplexity interpolated from its two neighbours, in per cent."""
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
    """The differences between head-aware runs and the uniform run of the same table, beside the binomial error."""
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
    """What the tables lack that a reader needs."""
    parts = {row.part for row in runs}
    told = []
    if FULL not in parts:
        told.append("the full cache: nothing says what eviction costs at all")
    if PERMUTED not in parts and HEAD_AWARE in parts:
        told.append("windows permuted at random over heads: nothing says that the head classes matter")
    if not any(row.error for row in runs):
        told.append("standard errors: nothing says which differences are noise")
    return told
