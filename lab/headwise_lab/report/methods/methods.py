"""Whole methods on one benchmark: each is compared with FastV at the same budget and with the unpruned model.

A method is named by its recipe. A column is a budget as it was asked for. Where methods turn the same request into
different processed averages, each average gets a column of its own, because only equal averages are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from headwise_lab.report.correcting import with_corrected
from headwise_lab.report.grouping import grouped
from headwise_lab.report.matching import ReferenceCurve, against, same_budget
from headwise_lab.report.page.facts import sign_of
from headwise_lab.report.page.slugs import slugs
from headwise_lab.report.pooling import Questions
from headwise_lab.report.trials import AskedTrial, Trial
from headwise_lab.stats.differences import BETTER, WORSE, Difference, paired
from headwise_lab.store.record_types import Record

REFERENCE = "fastv"
"""The recipe that others are compared with: nearly every paper names it, and it is the simplest."""

CONTROLS = ("random", "random-layer-2", "uniform", "uniform-layer-2", "pooling")
"""Recipes that read neither question nor picture. Tables list them last, figures draw them in grey."""


@attrs.frozen(eq=False)
class MethodResult:
    """One method at one budget. Its ``trials`` differ only in their seeds; ``trial`` pools them.

    The differences are paired and corrected over the whole table. The reference has the same budget.
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
        """Corrected probability of the difference to the reference."""
        return self.to_reference.adjusted if self.to_reference else None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``same`` against the reference; empty where nothing can be compared."""
        return sign_of(self.to_reference)

    @property
    def certain(self) -> bool:
        """Whether it is clearly better or clearly worse than the reference."""
        return self.verdict in (BETTER, WORSE)

    @property
    def records(self) -> tuple[str, ...]:
        """The ids of the records that its figures come from."""
        return tuple(trial.id for trial in self.trials) or (self.trial.id,)


@attrs.frozen(eq=False)
class Methods:
    """All methods on one benchmark: results by (method, budget), and why some could not be run (``refused``)."""

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
        """Every difference of the table; they are corrected together."""
        pairs = (pair for result in self.results.values() for pair in (result.to_reference, result.to_unpruned))
        return [pair for pair in pairs if pair is not None]

    def of(self, name: str) -> list[MethodResult]:
        """One method's results, in the order of the budgets."""
        return [self.results[name, budget] for budget in self.budgets if (name, budget) in self.results]


def compare_methods(trials: Sequence[Trial], records: Sequence[Record]) -> list[Methods]:
    """A comparison for each benchmark, model and set of questions. ``records``: all of them, refused ones included."""
    refused = [AskedTrial(record) for record in records if record.refused and not record.reads_text]
    questions = Questions.of([*trials, *refused])
    groups = grouped(trials, questions.table)
    titles = _titles(list(groups), [questions.label(members[0]) for members in groups.values()])
    return [
        _methods(title, slug, questions, members, [trial for trial in refused if questions.table(trial) == table])
        for (table, members), title, slug in zip(groups.items(), titles, slugs(titles), strict=True)
    ]


def _titles(keys: Sequence[tuple[str, str, int]], labels: Sequence[str]) -> list[str]:
    """Titles: the benchmark, and model and questions where they differ between the tables."""
    several = len({model for _, model, _ in keys}) > 1
    return [
        ", ".join(["Methods", benchmark, *([model] * several), *filter(None, [label])])
        for (benchmark, model, _), label in zip(keys, labels, strict=True)
    ]


def _methods(
    title: str, slug: str, questions: Questions, trials: Sequence[Trial], refused: Sequence[AskedTrial]
) -> Methods:
    whole = [trial for trial in trials if trial.unpruned]
    unpruned = questions.pooled(whole) if whole else None
    pruned = sorted((trial for trial in trials if not trial.unpruned), key=lambda trial: -trial.processed)
    names, budgets = _names([*pruned, *refused]), _budgets(pruned)
    members = grouped(pruned, lambda trial: (names[trial.id], budgets[trial.id]))
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
        names=tuple(ranked((name, result.trial.value) for (name, _), result in results.items())),
        results=_judged(results, unpruned, digits),
        unpruned=unpruned,
        refused={(names[trial.id], trial.given): str(trial.record.refused) for trial in refused},
    )


def _budgets(trials: Sequence[Trial]) -> dict[str, str]:
    """Record -> its budget; with the processed average where methods turn one request into different averages."""
    found: dict[str, str] = {}
    for given, members in grouped(trials, lambda trial: trial.given).items():
        rest = members
        groups: list[tuple[float, list[Trial]]] = []
        while rest:
            middle = next((trial for trial in rest if trial.record.recipe == REFERENCE), rest[0])
            groups.append((middle.processed, [trial for trial in rest if same_budget(trial, middle)]))
            rest = [trial for trial in rest if not same_budget(trial, middle)]
        for processed, group in groups:
            extra = f" ({processed:.1f})" if len(groups) > 1 else ""
            found |= {trial.id: given + extra for trial in group}
    return found


def _names(trials: Iterable[AskedTrial]) -> dict[str, str]:
    """Record -> the name of its method; with the strategies and settings in which trials of the same name differ."""
    members = grouped(trials, lambda trial: trial.record.recipe or trial.text("token_pruning"))
    names = {}
    for name, group in members.items():
        asked = {trial.id: [*trial.record.strategies.items(), *trial.setting] for trial in group}
        shared = set.intersection(*map(set, asked.values()))
        for trial in group:
            extra = ["=".join(pair) for pair in asked[trial.id] if pair not in shared]
            names[trial.id] = f"{name} ({' '.join(extra)})" if extra else name
    return names


def ranked(scores: Iterable[tuple[str, float]]) -> list[str]:
    """Methods in the order of the tables: the reference, then the best on average, then controls.

    ``scores``: (method, score) at each budget.
    """
    values = grouped(scores, lambda pair: pair[0])

    def rank(name: str) -> tuple[bool, bool, int, float, str]:
        # a method that was run at fewer budgets comes later: the easier ones alone would raise its average
        mean = sum(value for _, value in values[name]) / len(values[name])
        return name != REFERENCE, name in CONTROLS, -len(values[name]), -mean, name

    return sorted(values, key=rank)


def _judged(
    results: Mapping[tuple[str, str], MethodResult], unpruned: Trial | None, digits: int
) -> dict[tuple[str, str], MethodResult]:
    """The results with their differences, corrected over the whole table; the best of every budget is marked."""
    by_budget = grouped(results.values(), lambda result: result.budget)
    tops = {budget: max(round(one.trial.value, digits) for one in group) for budget, group in by_budget.items()}
    curve = ReferenceCurve.of([result.trial for result in results.values() if result.name == REFERENCE], unpruned)
    compared = [
        attrs.evolve(
            result,
            to_reference=None if result.name == REFERENCE else against(result.trial, curve.at(result.trial)),
            to_unpruned=_to_unpruned(result.trial, unpruned),
            best=round(result.trial.value, digits) == tops[result.budget],
        )
        for result in results.values()
    ]
    return dict(zip(results, with_corrected(compared, "to_reference", "to_unpruned"), strict=True))


def _to_unpruned(trial: Trial, unpruned: Trial | None) -> Difference | None:
    if unpruned is None or not (trial.units and unpruned.units):
        return None
    return paired(trial.units, unpruned.units)
