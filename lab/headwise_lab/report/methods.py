"""Whole methods side by side on one benchmark: each held against FastV at the same budget and the unpruned model.

Methods differ in everything, so what they are called by is the recipe. Budgets are what was asked for; what a method
made of one stands in its own record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from headwise_lab.records import compares_methods
from headwise_lab.report.comparison import slugs
from headwise_lab.report.statistics import LEVEL, Difference, holm, paired
from headwise_lab.report.trials import Trial

REFERENCE = "fastv"
"""The recipe that others are held against: named in nearly every paper, and the simplest."""

CONTROLS = ("random", "random-layer-2", "uniform", "uniform-layer-2", "pooling")
"""Recipes that look at neither question nor picture; they come last in tables and grey in figures."""


@attrs.frozen(eq=False)
class Result:
    """One method at one budget; differences are paired, ``adjusted`` is the Holm-adjusted probability of the first."""

    name: str
    budget: str
    trial: Trial
    to_reference: Difference | None = None
    to_unpruned: Difference | None = None
    adjusted: float | None = None
    best: bool = False

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``same`` against the reference by two standard errors; empty without pairs."""
        if self.to_reference is None:
            return ""
        if not self.to_reference.clear:
            return "same"
        return "better" if self.to_reference.value > 0 else "worse"

    @property
    def certain(self) -> bool:
        """Whether the verdict stays after Holm's correction over all comparisons of the table."""
        return self.verdict in ("better", "worse") and self.adjusted is not None and self.adjusted <= LEVEL


@attrs.frozen(eq=False)
class Methods:
    """All methods on one benchmark: results by (method, budget), and reasons where a method could not be run."""

    title: str
    slug: str
    benchmark: str
    metric: str
    digits: int
    budgets: tuple[str, ...]
    names: tuple[str, ...]
    results: Mapping[tuple[str, str], Result]
    unpruned: Trial | None
    refused: Mapping[tuple[str, str], str]

    def at(self, budget: str) -> list[Result]:
        """Results at one budget, in the order of the methods."""
        return [self.results[name, budget] for name in self.names if (name, budget) in self.results]

    def of(self, name: str) -> list[Result]:
        """One method's results, in the order of the budgets."""
        return [self.results[name, budget] for budget in self.budgets if (name, budget) in self.results]


def compare_methods(trials: Sequence[Trial], raw: Sequence[Mapping[str, Any]]) -> list[Methods]:
    """One comparison per benchmark, model and set of questions; ``raw`` are all records, refused ones included."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in filter(lambda trial: compares_methods(trial.record), trials):
        key = (trial.benchmark, trial.model, str(trial.record.get("questions") or ""))
        groups.setdefault(key, []).append(trial)
    refused = [Trial(record) for record in raw if compares_methods(record) and record.get("refused")]
    titles = _titles(list(groups))
    return [
        _methods(title, slug, members, [trial for trial in refused if _key(trial) == key])
        for (key, members), title, slug in zip(groups.items(), titles, slugs(titles), strict=True)
    ]


def _key(trial: Trial) -> tuple[str, str, str]:
    return trial.benchmark, trial.model, str(trial.record.get("questions") or "")


def _titles(keys: Sequence[tuple[str, str, str]]) -> list[str]:
    """The benchmark, and of model and questions what tells the tables apart."""
    several = len({model for _, model, _ in keys}) > 1
    titles = []
    for benchmark, model, questions in keys:
        asked = {other[2] for other in keys if other[:2] == (benchmark, model)}
        extra = [model] * several + [f"questions {questions[:8]}"] * (len(asked) > 1)
        titles.append(", ".join(["Methods", benchmark, *extra]))
    return titles


def _methods(title: str, slug: str, trials: Sequence[Trial], refused: Sequence[Trial]) -> Methods:
    unpruned = next((trial for trial in trials if trial.name("token_pruning") == "none"), None)
    pruned = [trial for trial in trials if trial.name("token_pruning") != "none"]
    names = _names([*pruned, *refused])
    results = {
        (names[trial.id], given(trial)): Result(names[trial.id], given(trial), trial)
        for trial in sorted(pruned, key=lambda trial: -trial.processed)
    }
    first = trials[0]
    digits = 0 if max(abs(trial.value) for trial in trials) > 200 else 1
    return Methods(
        title=title,
        slug=slug,
        benchmark=first.benchmark,
        metric=str(first.record["metric"].get("name") or "score"),
        digits=digits,
        budgets=tuple(dict.fromkeys(budget for _, budget in results)),
        names=_ordered(results),
        results=_judged(results, unpruned, digits),
        unpruned=unpruned,
        refused={(names[trial.id], given(trial)): str(trial.record["refused"]) for trial in refused},
    )


def given(trial: Trial) -> str:
    """The budget as it was asked for: ``tokens 48``."""
    return str(trial.record["budget"].get("given") or "everything").replace("=", " ")


def _names(trials: Iterable[Trial]) -> dict[str, str]:
    """Record -> the method's name, with its strategies or settings where the same name stands for several things."""
    members: dict[str, list[Trial]] = {}
    for trial in trials:
        members.setdefault(str(trial.record.get("recipe") or trial.text("token_pruning")), []).append(trial)
    names = {}
    for name, group in members.items():
        told = {trial.id: [*trial.record["strategies"].items(), *trial.setting] for trial in group}
        shared = set.intersection(*map(set, told.values()))
        for trial in group:
            extra = ["=".join(pair) for pair in told[trial.id] if pair not in shared]
            names[trial.id] = f"{name} ({' '.join(extra)})" if extra else name
    return names


def _ordered(results: Mapping[tuple[str, str], Result]) -> tuple[str, ...]:
    """The reference first, then the best on average, and controls last."""
    values: dict[str, list[float]] = {}
    for (name, _), result in results.items():
        values.setdefault(name, []).append(result.trial.value)

    def rank(name: str) -> tuple[bool, bool, int, float, str]:
        # a method that was not run at every budget is not ranked by its easier ones
        return name != REFERENCE, name in CONTROLS, -len(values[name]), -sum(values[name]) / len(values[name]), name

    return tuple(sorted(values, key=rank))


def _judged(
    results: Mapping[tuple[str, str], Result], unpruned: Trial | None, digits: int
) -> dict[tuple[str, str], Result]:
    """Pairs, Holm's correction over the whole table, and the best figure of every budget."""
    tops: dict[str, float] = {}
    for result in results.values():
        value = round(result.trial.value, digits)
        tops[result.budget] = max(tops.get(result.budget, value), value)
    paired_up = [
        attrs.evolve(
            result,
            to_reference=_difference(result.trial, results.get((REFERENCE, result.budget)), result.name),
            to_unpruned=_pairs(result.trial, unpruned),
            best=round(result.trial.value, digits) == tops[result.budget],
        )
        for result in results.values()
    ]
    adjusted = iter(holm([one.to_reference.probability for one in paired_up if one.to_reference]))
    judged = [attrs.evolve(one, adjusted=next(adjusted)) if one.to_reference else one for one in paired_up]
    return {(one.name, one.budget): one for one in judged}


def _difference(trial: Trial, reference: Result | None, name: str) -> Difference | None:
    return None if reference is None or name == REFERENCE else _pairs(trial, reference.trial)


def _pairs(trial: Trial, other: Trial | None) -> Difference | None:
    return paired(trial.units, other.units) if other is not None and trial.units and other.units else None
