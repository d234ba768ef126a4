"""A record seen by the report: its strategies parsed, its labels, and the scores of its pairing units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError, HeadwiseError
from headwise.text import StrategyText
from headwise_lab.benchmarks import benchmark
from headwise_lab.store.records import has_outcomes, has_result, is_kv, is_number, read_outcomes

_DEFAULTS = {"query_selection": "last_token", "head_scoring": "sum", "head_count": "all", "token_pruning": "none"}


@attrs.define(eq=False, slots=False)
class Trial:
    """One finished trial: its record, and unit -> score in the benchmark's scale (None without usable outcomes)."""

    record: Mapping[str, Any]
    units: Mapping[str, float] | None = None

    def text(self, hook: str) -> str:
        """Canonical strategy text of a hook."""
        return str(self.record["strategies"].get(hook) or _DEFAULTS.get(hook, "none"))

    def name(self, hook: str) -> str:
        """Bare strategy name of a hook."""
        return StrategyText.parse(self.text(hook)).name

    def number(self, group: str, key: str) -> float | None:
        """``record[group][key]`` where it is a finite number."""
        value: Any = (self.record.get(group) or {}).get(key)
        return float(value) if is_number(value) else None

    @property
    def id(self) -> str:
        """Identity of the record."""
        return str(self.record["id"])

    @property
    def benchmark(self) -> str:
        """Name of the benchmark."""
        return str(self.record["benchmark"])

    @property
    def value(self) -> float:
        """The headline figure in the benchmark's scale."""
        return float(self.record["metric"]["value"])

    @property
    def se(self) -> float | None:
        """Standard error of the headline figure."""
        return self.number("metric", "se")

    @property
    def strategies(self) -> str:
        """All strategy texts in one line, qualified by hook."""
        return " ".join(f"{hook}={text}" for hook, text in self.record["strategies"].items())

    @property
    def setting(self) -> tuple[tuple[str, str], ...]:
        """Everything beside strategies and budget that a fair comparison holds fixed."""
        settings = self.record.get("settings") or {}
        return tuple(sorted((str(key), str(value)) for key, value in settings.items()))

    @property
    def model(self) -> str:
        """Model and the start of its weights' hash."""
        weights = str(self.record.get("weights") or "")[:8]
        return f"{self.record.get('model') or 'model'}" + (f" ({weights})" if weights else "")

    @property
    def processed(self) -> float:
        """Average of visual tokens processed per decoder layer; 0 where the record does not say."""
        return self.number("budget", "processed") or 0.0

    @cached_property
    def budget(self) -> str:
        """The budget as given and what it makes layers process: ``keep 16 (37.3)``."""
        given = str(self.record["budget"].get("given") or "everything").replace("=", " ")
        return f"{given} ({self.processed:.1f})" if self.processed else given

    @property
    def selects_heads(self) -> bool:
        """Whether heads had a say; random or uniform dropping and the unpruned model read no attention."""
        return self.number("heads", "mean") is not None

    @cached_property
    def heads(self) -> str:
        """Which head rule this is: ``all``, a fixed count, or the text of the rule that decides."""
        count = StrategyText.parse(self.text("head_count"))
        mean, of = self.number("heads", "mean"), self.number("heads", "of")
        if count.name == "fixed" and mean is not None:
            return f"{mean:g}"
        if count.name == "all":
            return "all" if mean is None or of is None or mean >= of - 1e-9 else "own count"
        return self.text("head_count")

    @property
    def is_baseline(self) -> bool:
        """Whether this is FastV as published: all heads, plain sum."""
        return self.name("head_scoring") == "sum" and self.heads == "all"

    @property
    def is_control(self) -> bool:
        """Whether the heads were drawn at random."""
        return self.name("head_scoring") == "random"


def load_units(trial: Trial, folder: Path, benchmark: Any = None) -> str | None:
    """Fill ``trial.units`` from its outcomes; the sentence to warn with where that did not work, else None.

    ``benchmark`` knows how questions make units (MME's pairs); without one, a unit is the mean of its questions.
    """
    try:
        outcomes = read_outcomes(folder, trial.id)
    except DataError as error:
        if has_outcomes(folder, trial.id):
            raise
        return f"Record {trial.id} is compared with nothing: {error}."
    if not outcomes:
        return f"Record {trial.id} is compared with nothing: it has no outcomes."
    scores, scale = _unit_scores(trial, outcomes, benchmark)
    trial.units = {unit: scale * score for unit, score in scores.items()}
    mean = sum(trial.units.values()) / len(trial.units)
    if abs(mean - trial.value) > max(0.06, 0.001 * abs(trial.value)):
        return f"The outcomes of record {trial.id} give {mean:.2f}, its record says {trial.value:.2f}."
    return None


def _unit_scores(trial: Trial, outcomes: Sequence[Mapping[str, Any]], benchmark: Any) -> tuple[dict[str, float], float]:
    """Unit -> score and the scale, by the benchmark's own rule where there is one, else the plain mean per unit."""
    if benchmark is not None:
        from headwise_lab.benchmarks.base import Question

        questions = [
            Question(
                id=outcome["id"],
                unit=str(outcome.get("unit") or outcome["id"]),
                image=Path(str(outcome.get("image") or "")),
                text=str(outcome.get("question") or ""),
                answers=tuple(outcome.get("answers") or ()),
                kind=str(outcome.get("kind") or ""),
                boxes=tuple(tuple(box) for box in outcome.get("boxes") or ()),
            )
            for outcome in outcomes
        ]
        scores = [float(outcome["score"]) for outcome in outcomes]
        return dict(benchmark.units(questions, scores)), float(benchmark.scale)
    groups: dict[str, list[float]] = {}
    for outcome in outcomes:
        groups.setdefault(str(outcome.get("unit") or outcome["id"]), []).append(float(outcome["score"]))
    means = {unit: sum(scores) / len(scores) for unit, scores in groups.items()}
    overall = sum(means.values()) / len(means)
    ratio = trial.value / overall if overall else 100.0
    # a record that rounds its figure must not have a scale of its own: then nothing would be right or wrong any more
    return means, next((scale for scale in (1.0, 100.0) if math.isclose(ratio, scale, rel_tol=1e-3)), ratio)


def benchmark_of(name: str) -> Any:
    """The installed benchmark of that name, or None: a report can outlive the package that ran the benchmark."""
    try:
        return benchmark(name)
    except HeadwiseError:
        return None


def load_trials(folder: Path, raw: Sequence[Mapping[str, Any]]) -> tuple[list[Trial], list[str]]:
    """Trials of the benchmark records that have a result, outcomes read; and warnings about those without."""
    trials = [Trial(record) for record in raw if has_result(record) and not is_kv(record)]
    benchmarks = {name: benchmark_of(name) for name in {trial.benchmark for trial in trials}}
    warnings = [load_units(trial, folder, benchmarks[trial.benchmark]) for trial in trials]
    return trials, [warning for warning in warnings if warning]
