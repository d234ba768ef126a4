"""Whole methods side by side on one benchmark: each held against FastV at the same budget and the unpruned model.

Methods differ in everything, so what they are called by is the recipe. Budgets are what was asked for, and told apart
by processed average where methods made different things of one; only equal averages are held against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from headwise_lab.report.matching import ReferenceCurve, same_budget
from headwise_lab.report.page.slugs import slugs
from headwise_lab.report.pooling import Questions
from headwise_lab.report.trials import AskedTrial, Trial
from headwise_lab.stats.differences import BETTER, SAME, WORSE, Difference, paired
from headwise_lab.stats.rule import corrected
from headwise_lab.store.record_types import Record

REFERENCE = "fastv"
"""The recipe that others are held against: named in nearly every paper, and the simplest."""

CONTROLS = ("random", "random-layer-2", "uniform", "uniform-layer-2", "pooling")
"""Recipes that look at neither question nor picture; they come last in tables and grey in figures."""


@attrs.frozen(eq=False)
class MethodResult:
    """One method at one budget: ``trial`` is all its ``trials`` as one, which differ in their seeds alone.

    Differences are paired, that to the reference at an equal budget, and corrected for all comparisons of the table.
    """

    name: str
    budget: str
    trial: Trial
    to_reference: Difference | None = None
    to_unpruned: Difference | None = None
    best: bool = False
    trials: tuple[Trial, ...] = ()

    @property
    def adjusted(self) -> float | None:
        """Adjusted probability of the difference to the reference."""
        return self.to_reference.adjusted if self.to_reference else None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``same`` against the reference; empty where nothing can be compared."""
        told = self.to_reference.verdict if self.to_reference else ""
        return "same" if told == SAME else told

    @property
    def certain(self) -> bool:
        """Whether it is better or worse than the reference."""
        return self.verdict in (BETTER, WORSE)

    @property
    def records(self) -> tuple[str, ...]:
        """The records its figures come from."""
        return tuple(trial.id for trial in self.trials) or (self.trial.id,)


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
    results: Mapping[tuple[str, str], MethodResult]
    unpruned: Trial | None
    refused: Mapping[tuple[str, str], str]

    def at(self, budget: str) -> list[MethodResult]:
        """Results at one budget, in the order of the methods."""
        return [self.results[name, budget] for name in self.names if (name, budget) in self.results]

    def family(self) -> list[Difference]:
        """Every comparison of the table; they are corrected together."""
        pairs = (pair for result in self.results.values() for pair in (result.to_reference, result.to_unpruned))
        return [pair for pair in pairs if pair is not None]

    def of(self, name: str) -> list[MethodResult]:
        """One method's results, in the order of the budgets."""
        return [self.results[name, budget] for budget in self.budgets if (name, budget) in self.results]


def compare_methods(trials: Sequence[Trial], records: Sequence[Record]) -> list[Methods]:
    """One comparison per benchmark, model and set of questions; ``records`` are those of the trials and the refused."""
    refused = [AskedTrial(record) for record in records if record.refused and not record.reads_text]
    questions = Questions.of([*trials, *refused])

    def key(trial: AskedTrial) -> tuple[str, str, int]:
        return trial.benchmark, trial.model, questions.number(trial)

    groups: dict[tuple[str, str, int], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(key(trial), []).append(trial)
    titles = _titles(list(groups), [questions.label(members[0]) for members in groups.values()])
    return [
        _methods(title, slug, questions, members, [trial for trial in refused if key(trial) == found])
        for (found, members), title, slug in zip(groups.items(), titles, slugs(titles), strict=True)
    ]


def _titles(keys: Sequence[tuple[str, str, int]], labels: Sequence[str]) -> list[str]:
    """The benchmark, and of model and questions what tells the tables apart."""
    several = len({model for _, model, _ in keys}) > 1
    return [
        ", ".join(["Methods", benchmark, *([model] * several), *filter(None, [label])])
        for (benchmark, model, _), label in zip(keys, labels, strict=True)
    ]


def _methods(
    title: str, slug: str, questions: Questions, trials: Sequence[Trial], refused: Sequence[AskedTrial]
) -> Methods:
    whole = [trial for trial in trials if trial.name("token_pruning") == "none"]
    unpruned = questions.pooled(whole) if whole else None
    pruned = sorted((trial for trial in trials if trial not in whole), key=lambda trial: -trial.processed)
    names, budgets = _names([*pruned, *refused]), _budgets(pruned)
    members: dict[tuple[str, str], list[Trial]] = {}
    for trial in pruned:
        members.setdefault((names[trial.id], budgets[trial.id]), []).append(trial)
    results = {
        (name, budget): MethodResult(name, budget, questions.pooled(found), trials=tuple(found))
        for (name, budget), found in members.items()
    }
    first = trials[0]
    digits = 0 if max(abs(trial.value) for trial in trials) > 200 else 1
    return Methods(
        title=title,
        slug=slug,
        benchmark=first.benchmark,
        metric=first.record.metric.name or "score",
        digits=digits,
        budgets=tuple(dict.fromkeys(budget for _, budget in results)),
        names=_ordered(results),
        results=_judged(results, unpruned, digits),
        unpruned=unpruned,
        refused={(names[trial.id], trial.given): str(trial.record.refused) for trial in refused},
    )


def _budgets(trials: Sequence[Trial]) -> dict[str, str]:
    """Record -> its budget, with the processed average where methods made unequal things of what was asked for."""
    found: dict[str, str] = {}
    for asked in dict.fromkeys(trial.given for trial in trials):
        rest = [trial for trial in trials if trial.given == asked]
        groups: list[tuple[float, list[Trial]]] = []
        while rest:
            middle = next((trial for trial in rest if trial.record.recipe == REFERENCE), rest[0])
            groups.append((middle.processed, [trial for trial in rest if same_budget(trial, middle)]))
            rest = [trial for trial in rest if not same_budget(trial, middle)]
        for processed, group in groups:
            extra = f" ({processed:.1f})" if len(groups) > 1 else ""
            found |= {trial.id: asked + extra for trial in group}
    return found


def _names(trials: Iterable[AskedTrial]) -> dict[str, str]:
    """Record -> the method's name, with its strategies or settings where the same name stands for several things."""
    members: dict[str, list[AskedTrial]] = {}
    for trial in trials:
        members.setdefault(trial.record.recipe or trial.text("token_pruning"), []).append(trial)
    names = {}
    for name, group in members.items():
        told = {trial.id: [*trial.record.strategies.items(), *trial.setting] for trial in group}
        shared = set.intersection(*map(set, told.values()))
        for trial in group:
            extra = ["=".join(pair) for pair in told[trial.id] if pair not in shared]
            names[trial.id] = f"{name} ({' '.join(extra)})" if extra else name
    return names


def _ordered(results: Mapping[tuple[str, str], MethodResult]) -> tuple[str, ...]:
    """The reference first, then the best on average, and controls last."""
    values: dict[str, list[float]] = {}
    for (name, _), result in results.items():
        values.setdefault(name, []).append(result.trial.value)

    def rank(name: str) -> tuple[bool, bool, int, float, str]:
        # a method that was not run at every budget is not ranked by its easier ones
        return name != REFERENCE, name in CONTROLS, -len(values[name]), -sum(values[name]) / len(values[name]), name

    return tuple(sorted(values, key=rank))


def _judged(
    results: Mapping[tuple[str, str], MethodResult], unpruned: Trial | None, digits: int
) -> dict[tuple[str, str], MethodResult]:
    """Pairs, the correction over the whole table, and the best figure of every budget."""
    tops: dict[str, float] = {}
    for result in results.values():
        value = round(result.trial.value, digits)
        tops[result.budget] = max(tops.get(result.budget, value), value)
    curve = ReferenceCurve.of([result.trial for result in results.values() if result.name == REFERENCE], unpruned)
    pairs = [
        pair
        for result in results.values()
        for pair in (_to_reference(result, curve), _to_unpruned(result.trial, unpruned))
    ]
    adjusted = iter(corrected(pairs))
    return {
        key: attrs.evolve(
            result,
            to_reference=next(adjusted),
            to_unpruned=next(adjusted),
            best=round(result.trial.value, digits) == tops[result.budget],
        )
        for key, result in results.items()
    }


def _to_reference(result: MethodResult, curve: ReferenceCurve) -> Difference | None:
    found = None if result.name == REFERENCE else curve.at(result.trial)
    if found is None or not result.trial.units:
        return None
    return paired(result.trial.units, found.units, allowance=found.allowance, between=found.between)


def _to_unpruned(trial: Trial, unpruned: Trial | None) -> Difference | None:
    if unpruned is None or not (trial.units and unpruned.units):
        return None
    return paired(trial.units, unpruned.units)
