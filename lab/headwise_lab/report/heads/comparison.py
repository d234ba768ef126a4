"""Tables of head selection: a row per budget and head count, a column per strategy, each cell compared with all heads.

In one table, model, benchmark, token pruning and settings are the same. So is the query strategy where the columns are
head scorers, or the head scorer where the columns are query strategies. The baseline is FastV as published: ``sum``
over all heads at the same budget, with ``last_token`` where the columns are query strategies. The control keeps as many
heads, drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from headwise.text import StrategyText
from headwise_lab.report.grouping import grouped
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
    """One table: its title, the hook whose strategies are the columns (``axis``), the columns in order (baseline and
    control first) and the rows. The probabilities of all its differences are corrected together."""

    title: str
    slug: str
    benchmark: str
    metric: str
    axis: str
    digits: int
    columns: tuple[str, ...]
    rows: tuple[HeadRow, ...]

    def wins(self) -> dict[str, tuple[int, int]]:
        """Column -> (rows in which it is best, ties included; rows in which it alone is best), most wins first."""
        bests = [row.best for row in self.rows if len(row.cells) > 1]
        counts = {
            name: (sum(name in best for best in bests), sum(best == (name,) for best in bests)) for name in self.columns
        }
        return dict(sorted(counts.items(), key=lambda item: (-item[1][0], -item[1][1])))

    def cells(self) -> Iterable[tuple[HeadRow, str, Cell]]:
        """Every filled cell with its row and column, row by row."""
        return ((row, name, row.cells[name]) for row in self.rows for name in self.columns if name in row.cells)

    def family(self) -> list[Difference]:
        """Every difference of the table; they are corrected together."""
        pairs = (pair for _, _, cell in self.cells() for pair in (cell.against_baseline, cell.against_control))
        return [pair for pair in pairs if pair is not None]

    def peak(self) -> list[tuple[HeadRow, str, Cell]]:
        """The best configurations: the cells with the highest printed value."""
        filled = list(self.cells())
        top = max(round(cell.value, self.digits) for _, _, cell in filled)
        return [entry for entry in filled if round(entry[2].value, self.digits) == top]


def compare_heads(trials: Sequence[Trial], by_query: Collection[str] = ()) -> list[Comparison]:
    """All tables that the trials allow, sorted by benchmark; trials that select no heads are in none.

    ``by_query``: studies whose columns are query strategies, with a table for each head scorer.
    """
    questions = Questions.of(trials)

    def table_of(trial: Trial) -> tuple[Any, ...]:
        axis = "query_selection" if trial.record.study in by_query else "head_scoring"
        query = "" if axis == "query_selection" else trial.text("query_selection")
        same = trial.benchmark, trial.model, trial.text("token_pruning"), trial.setting
        return (axis, *same, query, questions.number(trial))

    groups = grouped((trial for trial in trials if trial.selects_heads), table_of)
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
    """The same model without pruning on the same questions, its seeds pooled."""
    full = [other for other in trials if other.unpruned and questions.table(other) == questions.table(trial)]
    return questions.pooled(full) if full else None


def _by_scorer(group: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """The trials of a table for each head scorer; baseline and control at ``last_token`` are in each."""
    shared = [
        trial
        for trial in group
        if trial.name("query_selection") == "last_token" and (trial.is_baseline or trial.is_control)
    ]
    own = [trial for trial in group if trial not in shared and not trial.is_control]
    scorers = list(dict.fromkeys(trial.text("head_scoring") for trial in own)) or [""]
    return [(scorer, shared + [trial for trial in own if trial.text("head_scoring") == scorer]) for scorer in scorers]


def _titles(headings: Sequence[tuple[Any, ...]]) -> list[str]:
    """Titles: the benchmark, and of everything else only what differs between the tables."""
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
    at = grouped(sorted(trials, key=lambda trial: -trial.processed), lambda trial: trial.budget)
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
    """Trial id -> column: the name of its strategy, or the whole text where trials differ in its options."""
    texts = grouped(dict.fromkeys(trial.text(axis) for trial in trials), lambda text: StrategyText.parse(text).name)

    def column(trial: Trial) -> str:
        reference = axis == "head_scoring" or trial.name("query_selection") == "last_token"
        if reference and (trial.is_baseline or trial.is_control):
            return BASELINE if trial.is_baseline else CONTROL
        name = trial.name(axis)
        return trial.text(axis) if len(texts[name]) > 1 else name

    return {trial.id: column(trial) for trial in trials}


def _rows_at(trials: Sequence[Trial], names: Mapping[str, str], questions: Questions) -> list[HeadRow]:
    """The rows of one budget, one per head rule. The baseline uses all heads and is repeated in each row."""
    baseline = [trial for trial in trials if names[trial.id] == BASELINE]
    by_heads = grouped((trial for trial in trials if trial not in baseline), lambda trial: trial.heads)
    if not by_heads:
        by_heads = {"all": []}
    rows = []
    for heads in sorted(by_heads, key=_head_order):
        columns = grouped([*baseline, *by_heads[heads]], lambda trial: names[trial.id])
        cells = {name: _cell(name, members, questions) for name, members in columns.items()}
        rows.append(HeadRow(trials[0].budget, heads, trials[0].processed, cells))
    return rows


def _head_order(heads: str) -> tuple[int, float, str]:
    if heads == "all":
        return 0, 0, ""
    return (1, -int(heads), "") if heads.isdigit() else (2, 0, heads)


def _cell(name: str, trials: Sequence[Trial], questions: Questions) -> Cell:
    """One cell from its trials. Several seeds are pooled over all their units; one record keeps its own figures."""
    role = {BASELINE: "baseline", CONTROL: "control"}.get(name, "strategy")
    pooled = questions.pooled(trials)
    several = len(trials) > 1 and pooled.record.seeds is not None
    return Cell(
        trials=tuple(trials) if several else (trials[-1],),
        value=pooled.value,
        se=math.nan if pooled.se is None else pooled.se,
        n=len(pooled.units or {}) if several else pooled.record.n,
        units=pooled.units or {},
        role=role,
        seeds=pooled.record.seeds or 1,
    )
