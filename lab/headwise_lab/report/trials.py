"""A record as reports read it: its strategies parsed, its labels, and the scores of its pairing units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import attrs

from headwise.errors import DataError, HeadwiseError
from headwise.text import StrategyText
from headwise_lab.benchmarks import Benchmark, benchmark
from headwise_lab.benchmarks.base import Question
from headwise_lab.report.grouping import grouped
from headwise_lab.store.outcome_types import Outcome, QuestionOutcome
from headwise_lab.store.record_types import Record, VisualRecord
from headwise_lab.store.records import has_outcomes, read_outcomes

Row = TypeVar("Row", bound=Outcome)

_DEFAULTS = {"query_selection": "last_token", "head_scoring": "sum", "head_count": "all", "token_pruning": "none"}


@attrs.define(eq=False, slots=False)
class AskedTrial:
    """What a trial was asked to do, whether or not it has a result."""

    record: Record

    def text(self, hook: str) -> str:
        """Canonical strategy text of a hook."""
        return self.record.strategies.get(hook) or _DEFAULTS.get(hook, "none")

    def name(self, hook: str) -> str:
        """Bare strategy name of a hook."""
        return StrategyText.parse(self.text(hook)).name

    @property
    def unpruned(self) -> bool:
        """Whether all visual tokens stay."""
        return self.name("token_pruning") == "none"

    @property
    def keeps_everything(self) -> bool:
        """Whether all visual tokens and all cache entries stay."""
        return self.unpruned and self.name("kv_eviction") == "none"

    @property
    def id(self) -> str:
        """Identity of the record."""
        return self.record.id

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return str(self.record.benchmark)

    @property
    def strategies(self) -> str:
        """All strategy texts in one line, qualified by hook."""
        return " ".join(f"{hook}={text}" for hook, text in self.record.strategies.items())

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """The settings, which have to be equal in a fair comparison."""
        return tuple(sorted((key, str(value)) for key, value in (self.record.settings or {}).items()))

    @property
    def model(self) -> str:
        """Name of the model and the beginning of the hash of its weights."""
        weights = (self.record.weights or "")[:8]
        return f"{self.record.model or 'model'}" + (f" ({weights})" if weights else "")

    @property
    def given(self) -> str:
        """The budget as it was asked for: ``tokens 48``."""
        budget = self.record.budget
        return ((budget and budget.given) or "everything").replace("=", " ")


@attrs.define(eq=False, slots=False)
class Trial(AskedTrial):
    """A finished trial: its record, and unit -> score in the benchmark's scale (None without usable outcomes)."""

    record: VisualRecord
    units: Mapping[str, float] | None = None

    @property
    def value(self) -> float:
        """The score of the record, in the benchmark's scale."""
        return float(self.record.metric.value)

    @property
    def se(self) -> float | None:
        """Standard error of the score."""
        return self.record.metric.se

    @property
    def processed(self) -> float:
        """Average of visual tokens processed per decoder layer; 0 where the record does not say."""
        return float(self.record.budget.processed or 0.0)

    @cached_property
    def budget(self) -> str:
        """The budget as given, and the average number of tokens processed: ``keep 16 (37.3)``."""
        return f"{self.given} ({self.processed:.1f})" if self.processed else self.given

    @property
    def selects_heads(self) -> bool:
        """Whether heads decided which tokens stay. Random or uniform dropping and the unpruned model ask no head."""
        return self.record.heads.mean is not None

    @cached_property
    def heads(self) -> str:
        """The head rule: ``all``, a fixed count, or the text of the rule that counts heads."""
        count = StrategyText.parse(self.text("head_count"))
        mean, of = self.record.heads.mean, self.record.heads.of
        if count.name == "fixed" and mean is not None:
            return f"{mean:g}"
        if count.name == "all":
            return "all" if mean is None or of is None or mean >= of - 1e-9 else "own count"
        return self.text("head_count")

    @property
    def is_baseline(self) -> bool:
        """Whether this is FastV as published: the plain sum over all heads."""
        return self.name("head_scoring") == "sum" and self.heads == "all"

    @property
    def is_control(self) -> bool:
        """Whether the heads were drawn at random."""
        return self.name("head_scoring") == "random"


def recall(trial: Trial) -> float | None:
    """The share of the tokens in boxes that is kept."""
    return trial.record.overlap.recall if trial.record.overlap else None


def load_units(trial: Trial, folder: Path, benchmark: Benchmark | None = None) -> str | None:
    """Fill ``trial.units`` from its outcomes; returns a warning where they are missing or disagree with the record.

    ``benchmark`` knows which questions form a unit (MME's pairs); without it, a unit's score is the mean of its
    questions. Raises DataError for outcomes that are there and malformed.
    """
    outcomes, warning = outcomes_of(folder, trial.id, QuestionOutcome)
    if not outcomes:
        return warning
    scores, scale = _unit_scores(trial, outcomes, benchmark)
    trial.units = {unit: scale * score for unit, score in scores.items()}
    mean = sum(trial.units.values()) / len(trial.units)
    if abs(mean - trial.value) > max(0.06, 0.001 * abs(trial.value)):
        return f"The outcomes of record {trial.id} give {mean:.2f}, its record says {trial.value:.2f}."
    return None


def outcomes_of(folder: Path, identity: str, kind: type[Row]) -> tuple[list[Row], str | None]:
    """The outcomes of a record; or none, and a warning, where they are missing. Raises DataError for malformed ones."""
    try:
        outcomes = read_outcomes(folder, identity, kind)
    except DataError as error:
        if has_outcomes(folder, identity):
            raise
        return [], f"Record {identity} is compared with nothing: {error}."
    return outcomes, None if outcomes else f"Record {identity} is compared with nothing: it has no outcomes."


def _unit_scores(
    trial: Trial, outcomes: Sequence[QuestionOutcome], benchmark: Benchmark | None
) -> tuple[dict[str, float], float]:
    """Unit -> score, and the scale: by the benchmark's own rule, or without it the mean of each unit's questions."""
    if benchmark is not None:
        scores = [float(outcome.score) for outcome in outcomes]
        return dict(benchmark.units(list(map(_question, outcomes)), scores)), float(benchmark.scale)
    groups = grouped(outcomes, lambda outcome: outcome.unit_or_id)
    means = {unit: sum(float(outcome.score) for outcome in group) / len(group) for unit, group in groups.items()}
    overall = sum(means.values()) / len(means)
    ratio = trial.value / overall if overall else 100.0
    # a score that was rounded must not give a scale such as 99.98: then no unit would count as right or wrong any more
    return means, next((scale for scale in (1.0, 100.0) if math.isclose(ratio, scale, rel_tol=1e-3)), ratio)


def _question(outcome: QuestionOutcome) -> Question:
    return Question(
        id=outcome.id,
        unit=outcome.unit_or_id,
        image=Path(outcome.image or ""),
        text=outcome.question or "",
        answers=tuple(outcome.answers),
        kind=outcome.kind or "",
        boxes=tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in (box for box in outcome.boxes if len(box) == 4)),
    )


def benchmark_of(name: str) -> Benchmark | None:
    """The installed benchmark of that name; None where the package that ran it is not installed any more."""
    try:
        return benchmark(name)
    except HeadwiseError:
        return None


def load_trials(folder: Path, records: Sequence[Record]) -> tuple[list[Trial], list[str]]:
    """The trials of the benchmark records that have a result, with their outcomes; and warnings about some of them."""
    trials = [Trial(record) for record in records if isinstance(record, VisualRecord)]
    benchmarks = {name: benchmark_of(name) for name in {trial.benchmark for trial in trials}}
    warnings = [load_units(trial, folder, benchmarks[trial.benchmark]) for trial in trials]
    return trials, [warning for warning in warnings if warning]
