"""Trials laid out as seed tables: budget x heads down, strategies across, each cell held against all heads.

A comparison holds model, benchmark, token pruning, settings and either the query strategy (head scoring goes across)
or the head scorer (query strategies go across) fixed. Its baseline is ``sum`` over all heads at the same budget, with
``last_token`` where query strategies go across: FastV as published. Its control is heads drawn at random, as many.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from headwise_lab.report.heads.cells import BASELINE, CONTROL, Cell, HeadRow
from headwise_lab.report.heads.verdict_of_cells import judge_rows
from headwise_lab.report.matching import ReferenceCurve
from headwise_lab.report.page.slugs import slugs
from headwise_lab.report.pooling import Questions
from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import Difference

__all__ = ["BASELINE", "CONTROL", "Cell", "Comparison", "HeadRow", "compare_heads"]


@attrs.frozen(eq=False)
class Comparison:
    """One table: its title, what goes across, its columns in order (baseline and control first) and its rows.

    All its differences to baseline and control are one family: their probabilities are corrected together.
    """

    title: str
    slug: str
    benchmark: str
    metric: str
    axis: str
    digits: int
    columns: tuple[str, ...]
    rows: tuple[HeadRow, ...]

    def wins(self) -> dict[str, tuple[int, int]]:
        """Column -> (rows it is best in, ties counted for each; rows it alone is best in), most wins first."""
        bests = [row.best for row in self.rows if len(row.cells) > 1]
        counts = {
            name: (sum(name in best for best in bests), sum(best == (name,) for best in bests)) for name in self.columns
        }
        return dict(sorted(counts.items(), key=lambda item: (-item[1][0], -item[1][1])))

    def cells(self) -> Iterable[tuple[HeadRow, str, Cell]]:
        """Every filled cell with its row and column, row by row in column order."""
        return ((row, name, row.cells[name]) for row in self.rows for name in self.columns if name in row.cells)

    def family(self) -> list[Difference]:
        """Every comparison of the table."""
        pairs = (pair for _, _, cell in self.cells() for pair in (cell.against_baseline, cell.against_control))
        return [pair for pair in pairs if pair is not None]

    def peak(self) -> list[tuple[HeadRow, str, Cell]]:
        """The best configurations: the cells with the highest printed value."""
        filled = list(self.cells())
        top = max(round(cell.value, self.digits) for _, _, cell in filled)
        return [entry for entry in filled if round(entry[2].value, self.digits) == top]


def compare_heads(trials: Sequence[Trial], by_query: Collection[str] = ()) -> list[Comparison]:
    """All comparisons the trials allow, by benchmark; trials that select no heads are not part of any.

    ``by_query``: studies in which query strategies go across, at a fixed head scorer.
    """
    questions = Questions.of(trials)
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in filter(lambda trial: trial.selects_heads, trials):
        axis = "query_selection" if trial.record.study in by_query else "head_scoring"
        fixed = "" if axis == "query_selection" else trial.text("query_selection")
        key = (axis, trial.benchmark, trial.model, trial.text("token_pruning"), trial.setting, fixed)
        groups.setdefault((*key, questions.number(trial)), []).append(trial)
    laid_out = [
        (key, scorer, members)
        for key, group in sorted(groups.items(), key=lambda item: item[0])
        for scorer, members in (_by_scorer(group) if key[0] == "query_selection" else [("", group)])
    ]
    titles = _titles([(*key[:-1], scorer, questions.label(members[0])) for key, scorer, members in laid_out])
    return [
        _comparison(members, questions, _unpruned(members[0], trials, questions), title=title, slug=slug, axis=key[0])
        for title, slug, (key, _, members) in zip(titles, slugs(titles), laid_out, strict=True)
    ]


def _unpruned(trial: Trial, trials: Sequence[Trial], questions: Questions) -> Trial | None:
    """The same model without pruning on the same questions, all its seeds as one."""
    key = trial.benchmark, trial.model, questions.number(trial)
    full = [
        other
        for other in trials
        if other.name("token_pruning") == "none" and (other.benchmark, other.model, questions.number(other)) == key
    ]
    return questions.pooled(full) if full else None


def _by_scorer(group: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """One table per fixed scorer; the baseline and the control at ``last_token`` belong to each."""
    shared = [
        trial
        for trial in group
        if trial.name("query_selection") == "last_token" and (trial.is_baseline or trial.is_control)
    ]
    own = [trial for trial in group if trial not in shared and not trial.is_control]
    scorers = list(dict.fromkeys(trial.text("head_scoring") for trial in own)) or [""]
    return [(scorer, shared + [trial for trial in own if trial.text("head_scoring") == scorer]) for scorer in scorers]


def _titles(headings: Sequence[tuple[Any, ...]]) -> list[str]:
    """The benchmark, and of everything else only what tells the tables apart."""
    varies = [len(set(values) - {"", ()}) > 1 for values in zip(*headings, strict=True)]
    titles = []
    for axis, benchmark, model, pruning, setting, query, scorer, asked in headings:
        extra = ["query strategies"] if axis == "query_selection" and varies[0] else []
        parts = [(2, model), (3, pruning), (4, " ".join("=".join(pair) for pair in setting)), (5, query), (6, scorer)]
        parts += [(7, asked)]
        extra += [part for index, part in parts if varies[index] and part]
        titles.append(", ".join([benchmark, *extra]))
    return titles


def _comparison(
    trials: Sequence[Trial], questions: Questions, unpruned: Trial | None, *, title: str, slug: str, axis: str
) -> Comparison:
    names = _column_names(axis, trials)
    at: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: -trial.processed):
        at.setdefault(trial.budget, []).append(trial)
    baselines = [[trial for trial in members if names[trial.id] == BASELINE] for members in at.values()]
    curve = ReferenceCurve.of([questions.pooled(members) for members in baselines if members], unpruned)
    digits = 1 if max(abs(trial.value) for trial in trials) > 200 else 2
    rows = [row for members in at.values() for row in _rows_at(members, names, questions)]
    columns = (BASELINE, CONTROL, *sorted(set(names.values()) - {BASELINE, CONTROL}))
    first = trials[0]
    metric = first.record.metric.name or "score"
    return Comparison(
        title, slug, first.benchmark, metric, axis, digits, columns, tuple(judge_rows(rows, curve, digits))
    )


def _column_names(axis: str, trials: Sequence[Trial]) -> dict[str, str]:
    """Trial id -> column: the strategy's name, or its whole text where one name comes with several options."""
    names: dict[str, str] = {}
    texts: dict[str, set[str]] = {}
    for trial in trials:
        texts.setdefault(trial.name(axis), set()).add(trial.text(axis))
    for trial in trials:
        reference = axis == "head_scoring" or trial.name("query_selection") == "last_token"
        if trial.is_baseline and reference:
            names[trial.id] = BASELINE
        elif trial.is_control and reference:
            names[trial.id] = CONTROL
        else:
            name = trial.name(axis)
            names[trial.id] = trial.text(axis) if len(texts[name]) > 1 else name
    return names


def _rows_at(trials: Sequence[Trial], names: Mapping[str, str], questions: Questions) -> list[HeadRow]:
    """The rows of one budget; the baseline, which has no head count of its own, stands in each."""
    columns: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        if names[trial.id] != BASELINE:
            columns.setdefault(trial.heads, {}).setdefault(names[trial.id], []).append(trial)
    baseline = [trial for trial in trials if names[trial.id] == BASELINE]
    if baseline:
        columns = columns or {"all": {}}
        columns = {heads: {BASELINE: baseline, **cells} for heads, cells in columns.items()}
    first = trials[0]
    return [
        HeadRow(
            budget=first.budget,
            heads=heads,
            processed=first.processed,
            cells={name: _cell(name, cell, questions) for name, cell in columns[heads].items()},
        )
        for heads in sorted(columns, key=_head_order)
    ]


def _head_order(heads: str) -> tuple[int, float, str]:
    if heads == "all":
        return 0, 0, ""
    return (1, -int(heads), "") if heads.isdigit() else (2, 0, heads)


def _cell(name: str, trials: Sequence[Trial], questions: Questions) -> Cell:
    """One cell from its trials: the record's own figures where there is one, else those of all units."""
    role = {BASELINE: "baseline", CONTROL: "control"}.get(name, "strategy")
    one = questions.pooled(trials)
    seeds = one.record.seeds or 1
    several = len(trials) > 1 and one.record.seeds is not None
    return Cell(
        trials=tuple(trials) if several else (trials[-1],),
        value=one.value,
        se=math.nan if one.se is None else one.se,
        n=len(one.units or {}) if several else one.record.n,
        units=one.units or {},
        role=role,
        seeds=seeds,
    )
