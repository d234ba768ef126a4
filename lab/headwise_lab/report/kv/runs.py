"""A KV record as reports read it: the part of its strategy in a comparison, and the loss of every token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import attrs

from headwise.errors import HeadwiseError
from headwise.text import StrategyText
from headwise_lab.report.trials import outcomes_of
from headwise_lab.store.outcome_types import TokenOutcome
from headwise_lab.store.record_types import Record, TextRecord

FULL, WINDOW, UNIFORM, TWIN = "full", "window", "uniform", "uniform twin"
HEAD_AWARE, PERMUTED, SCORED = "head-aware", "permuted", "score-based"

PARTS = (FULL, WINDOW, UNIFORM, TWIN, HEAD_AWARE, PERMUTED, SCORED)
"""The parts of a run in a comparison. A twin is a head-aware strategy with equal windows for all heads, which is a
uniform run; its difference to the uniform curve therefore cannot come from head-awareness."""

LARGEST = 700.0
"""Nats of a loss whose perplexity is still a number, as is that of a difference between two such losses."""

_PARTS = {
    "none": FULL,
    "window": WINDOW,
    "streaming": UNIFORM,
    "permuted": PERMUTED,
    "confidence_windows": HEAD_AWARE,
    "allocated": HEAD_AWARE,
}
_NOT_WINDOWS = ("sinks", "positions")


@attrs.define(eq=False, slots=False)
class KvRun:
    """A finished record, and token -> loss in nats (None without usable outcomes)."""

    record: TextRecord
    nll: Mapping[str, float] | None = None

    @property
    def id(self) -> str:
        """Identity of the record."""
        return self.record.id

    @property
    def text(self) -> str:
        """Canonical text of the eviction strategy."""
        return self.record.strategies.get("kv_eviction") or "none"

    @cached_property
    def strategy(self) -> StrategyText:
        """The eviction strategy, parsed."""
        return StrategyText.parse(self.text)

    @property
    def name(self) -> str:
        """The name that a study gave the run, else its strategy text."""
        return self.record.name or self.text

    @property
    def group(self) -> str:
        """The group in the study, else the part."""
        return self.record.group or self.part

    @cached_property
    def part(self) -> str:
        """One of PARTS, from the strategy text and whether a head profile was given."""
        return part_of(self.strategy, HEAD_AWARE if self.record.profile else SCORED)

    @cached_property
    def windows(self) -> Mapping[str, int]:
        """Class of heads -> window, for the classes in the strategy text."""
        return windows_of(self.strategy)

    @property
    def context(self) -> float:
        """Effective context: how many entries the last token sees, averaged over layers and KV heads."""
        return float(self.record.context)

    @property
    def ppl(self) -> float:
        """Perplexity."""
        return float(self.record.metric.value)

    @property
    def ppl_se(self) -> float:
        """Standard error of the perplexity; NaN where it is unknown."""
        return or_nan(self.record.metric.se)

    @cached_property
    def controls(self) -> str | None:
        """For a permuted run, the canonical text of the strategy whose windows it shuffles over the heads."""
        inner = self.strategy.options.get("of") if self.part == PERMUTED else None
        return None if inner is None else spelled_out(inner)

    @property
    def family(self) -> tuple[str, str]:
        """For a uniform run, its sinks and positions, which are the same along a curve."""
        options = self.strategy.options
        return options.get("sinks", ""), options.get("positions", "")

    @property
    def setting(self) -> tuple[str, ...]:
        """What has to be equal in a fair comparison: model, precision, text and number of tokens."""
        record, text = self.record, self.record.text
        model = record.model, record.weights, record.dtype, record.attention
        return tuple(map(str, (*model, text.name, text.digest, text.tokens)))


def or_nan(value: float | None) -> float:
    """A figure; NaN for None."""
    return math.nan if value is None else float(value)


def part_of(strategy: StrategyText, unknown: str = SCORED) -> str:
    """The part of a strategy; ``unknown`` for one that this package does not know."""
    if strategy.name == "head_windows":
        return TWIN if len(set(windows_of(strategy).values())) == 1 else HEAD_AWARE
    return _PARTS.get(strategy.name, unknown)


def windows_of(strategy: StrategyText) -> dict[str, int]:
    """Class of heads -> window, from the options of a strategy."""
    options = strategy.options.items()
    return {key: int(value) for key, value in options if key not in _NOT_WINDOWS and value.isdigit()}


def spelled_out(text: str) -> str:
    """The canonical text of an eviction strategy; the text unchanged where its package is not installed any more."""
    from headwise.registry import resolve

    try:
        return resolve(text, ("kv_eviction",)).text
    except HeadwiseError:
        return text


def load_runs(folder: Path, records: Sequence[Record]) -> tuple[list[KvRun], list[str]]:
    """The runs of the KV records that have a result, with their losses; and warnings about some of them."""
    runs = [KvRun(record) for record in records if isinstance(record, TextRecord)]
    warnings = [_load_losses(run, folder) for run in runs]
    return runs, [warning for warning in warnings if warning]


def _load_losses(run: KvRun, folder: Path) -> str | None:
    outcomes, warning = outcomes_of(folder, run.id, TokenOutcome)
    if not outcomes:
        return warning
    nll = {outcome.id: float(outcome.score) for outcome in outcomes}
    odd = next((token for token, loss in nll.items() if not -1 < loss < LARGEST), None)
    if odd is not None:
        return f"Record {run.id} is compared with nothing: token {odd} has a loss of {nll[odd]:.3g} nats."
    run.nll = nll
    mean, recorded = math.fsum(run.nll.values()) / len(run.nll), or_nan(run.record.nll.mean)
    if abs(mean - recorded) > 1e-4 * max(1.0, abs(recorded)):
        return f"The outcomes of record {run.id} give a loss of {mean:.4f} nats, its record says {recorded:.4f}."
    return None
