"""Trials laid out as seed tables: budget x heads down, strategies across, each cell held against all heads.

A comparison holds model, benchmark, token pruning, settings and either the query strategy (study A: head scoring goes
across) or the head scorer (study B: query strategies go across) fixed. Its baseline is ``sum`` over all heads at the
same budget, in study B with ``last_token``: FastV as published. Its control is heads drawn at random, as many.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from headwise_lab.report.statistics import LEVEL, Difference, holm, mean_and_error, paired
from headwise_lab.report.trials import Trial

BASELINE = "sum (all heads)"
CONTROL = "random (control)"


@attrs.frozen(eq=False)
class Cell:
    """One strategy at one budget and head count; several seeds of the same strategy are pooled.

    ``value`` and ``se`` in the benchmark's scale over ``n`` units. ``against_baseline`` and ``against_control`` are
    paired. ``adjusted`` is the Holm-adjusted probability of the difference to the baseline.
    """

    trials: tuple[Trial, ...]
    value: float
    se: float
    n: int
    units: Mapping[Any, float]
    role: str = "strategy"
    against_baseline: Difference | None = None
    against_control: Difference | None = None
    adjusted: float | None = None
    best: bool = False

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference`` against the baseline; empty where nothing can be compared."""
        if self.role == "baseline" or self.against_baseline is None:
            return ""
        if not self.against_baseline.clear:
            return "no difference"
        return "better" if self.against_baseline.value > 0 else "worse"

    @property
    def recommended(self) -> bool:
        """Better than all heads after Holm's correction, and better than as many heads drawn at random."""
        return (
            self.role == "strategy"
            and self.verdict == "better"
            and self.adjusted is not None
            and self.adjusted <= LEVEL
            and self.against_control is not None
            and self.against_control.clear
            and self.against_control.value > 0
        )


@attrs.frozen(eq=False)
class Row:
    """One budget and head rule: column name -> cell."""

    budget: str
    heads: str
    processed: float
    cells: Mapping[str, Cell]

    @property
    def mean_heads(self) -> float | None:
        """Heads kept on average over the row's own trials; the baseline, shown in every row, does not count."""
        own = [trial for cell in self.cells.values() for trial in cell.trials if trial.heads == self.heads]
        means = [mean for trial in own if (mean := trial.number("heads", "mean")) is not None]
        return plain.fmean(means) if means else None

    @property
    def all_heads(self) -> float:
        """Heads the model has; 0 where no record says."""
        return max(
            (trial.number("heads", "of") or 0 for cell in self.cells.values() for trial in cell.trials), default=0
        )

    @property
    def head_label(self) -> str:
        """``all``, the fixed count, or the name of the rule and the mean number of heads it kept."""
        if self.heads == "all" or self.heads.isdigit() or self.mean_heads is None:
            return self.heads
        return f"{self.heads.partition(':')[0]} ({self.mean_heads:.1f})"

    @property
    def best(self) -> tuple[str, ...]:
        """Columns with the best printed value, more than one where they tie."""
        return tuple(name for name, cell in self.cells.items() if cell.best)


@attrs.frozen(eq=False)
class Comparison:
    """One table: its title, what goes across, its columns in order (baseline and control first) and its rows."""

    title: str
    slug: str
    benchmark: str
    metric: str
    axis: str
    digits: int
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def wins(self) -> dict[str, tuple[int, int]]:
        """Column -> (rows it is best in, ties counted for each; rows it alone is best in), most wins first."""
        bests = [row.best for row in self.rows if len(row.cells) > 1]
        counts = {
            name: (sum(name in best for best in bests), sum(best == (name,) for best in bests)) for name in self.columns
        }
        return dict(sorted(counts.items(), key=lambda item: (-item[1][0], -item[1][1])))

    def cells(self) -> Iterable[tuple[Row, str, Cell]]:
        """Every filled cell with its row and column, row by row in column order."""
        return ((row, name, row.cells[name]) for row in self.rows for name in self.columns if name in row.cells)

    def peak(self) -> list[tuple[Row, str, Cell]]:
        """The best configurations: the cells with the highest printed value."""
        filled = list(self.cells())
        top = max(round(cell.value, self.digits) for _, _, cell in filled)
        return [entry for entry in filled if round(entry[2].value, self.digits) == top]


def compare(trials: Sequence[Trial]) -> list[Comparison]:
    """All comparisons the trials allow, by benchmark; trials that select no heads are not part of any."""
    groups: dict[tuple[Any, ...], list[Trial]] = {}
    for trial in filter(lambda trial: trial.selects_heads, trials):
        axis = "query_selection" if trial.record.get("study") == "b" else "head_scoring"
        fixed = "" if axis == "query_selection" else trial.text("query_selection")
        key = (axis, trial.benchmark, trial.model, trial.text("token_pruning"), trial.setting, fixed)
        groups.setdefault(key, []).append(trial)
    laid_out = [
        (key, scorer, members)
        for key, group in sorted(groups.items(), key=lambda item: item[0])
        for scorer, members in (_by_scorer(group) if key[0] == "query_selection" else [("", group)])
    ]
    headings = [(axis, *rest, scorer) for (axis, *rest), scorer, _ in laid_out]
    titles = _titles(headings)
    names = slugs(titles)
    return [
        _comparison(title, slug, key[0], members)
        for title, slug, (key, _, members) in zip(titles, names, laid_out, strict=True)
    ]


def _by_scorer(group: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
    """Study B, one table per fixed scorer; the baseline and the control at ``last_token`` belong to each."""
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
    for axis, benchmark, model, pruning, setting, query, scorer in headings:
        extra = ["query strategies"] if axis == "query_selection" and varies[0] else []
        parts = [(2, model), (3, pruning), (4, " ".join("=".join(pair) for pair in setting)), (5, query), (6, scorer)]
        extra += [part for index, part in parts if varies[index] and part]
        titles.append(", ".join([benchmark, *extra]))
    return titles


def slugs(titles: Sequence[str]) -> list[str]:
    """File names of the titles, each used once."""
    taken: dict[str, int] = {}
    found = []
    for title in titles:
        bare = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title.lower())
        slug = "-".join(filter(None, bare.split("-")))[:80] or "table"
        taken[slug] = taken.get(slug, 0) + 1
        found.append(slug if taken[slug] == 1 else f"{slug}-{taken[slug]}")
    return found


def _comparison(title: str, slug: str, axis: str, trials: Sequence[Trial]) -> Comparison:
    names = _column_names(axis, trials)
    budgets = sorted({trial.budget: trial for trial in trials}.values(), key=lambda trial: -trial.processed)
    digits = 1 if max(abs(trial.value) for trial in trials) > 200 else 2
    rows = [
        row
        for budget in budgets
        for row in _rows_at(budget, [trial for trial in trials if trial.budget == budget.budget], names)
    ]
    columns = (BASELINE, CONTROL, *sorted(set(names.values()) - {BASELINE, CONTROL}))
    judged = _judge(rows, digits)
    first = trials[0]
    metric = str(first.record["metric"].get("name") or "score")
    return Comparison(title, slug, first.benchmark, metric, axis, digits, columns, tuple(judged))


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


def _rows_at(budget: Trial, trials: Sequence[Trial], names: Mapping[str, str]) -> list[Row]:
    """The rows of one budget; the baseline, which has no head count of its own, stands in each."""
    columns: dict[str, dict[str, list[Trial]]] = {}
    for trial in trials:
        if names[trial.id] != BASELINE:
            columns.setdefault(trial.heads, {}).setdefault(names[trial.id], []).append(trial)
    baseline = [trial for trial in trials if names[trial.id] == BASELINE]
    if baseline:
        columns = columns or {"all": {}}
        columns = {heads: {BASELINE: baseline, **cells} for heads, cells in columns.items()}
    return [
        Row(budget.budget, heads, budget.processed, {name: _pool(name, cell) for name, cell in columns[heads].items()})
        for heads in sorted(columns, key=_head_order)
    ]


def _head_order(heads: str) -> tuple[int, float, str]:
    if heads == "all":
        return 0, 0, ""
    return (1, -int(heads), "") if heads.isdigit() else (2, 0, heads)


def _pool(name: str, trials: Sequence[Trial]) -> Cell:
    """One cell from its trials: the record's own figures where there is one, else the mean over seeds, by unit."""
    role = {BASELINE: "baseline", CONTROL: "control"}.get(name, "strategy")
    scores: dict[Any, list[float]] = {}
    for trial in trials:
        for unit, score in (trial.units or {}).items():
            scores.setdefault((trial.record.get("seed"), unit), []).append(score)
    units = {unit: plain.fmean(values) for unit, values in scores.items()}
    if len(trials) == 1 or not all(trial.units for trial in trials):
        first = trials[-1]
        se = math.nan if first.se is None else first.se
        return Cell((first,), first.value, se, int(first.record["n"]), dict(units) if first.units else {}, role)
    mean, error = mean_and_error(list(units.values()))
    return Cell(tuple(trials), mean, error, len(units), units, role)


def _judge(rows: Sequence[Row], digits: int) -> list[Row]:
    """Mark the best of each row, pair every cell with baseline and control, and correct for the table's comparisons."""
    rows = [attrs.evolve(row, cells=_paired_cells(row, _control_for(row, rows), digits)) for row in rows]
    compared = [
        (index, name, cell.against_baseline.probability)
        for index, row in enumerate(rows)
        for name, cell in row.cells.items()
        if cell.role == "strategy" and cell.against_baseline is not None
    ]
    adjusted = holm([probability for _, _, probability in compared])
    for (index, name, _), value in zip(compared, adjusted, strict=True):
        cells = dict(rows[index].cells)
        cells[name] = attrs.evolve(cells[name], adjusted=value)
        rows[index] = attrs.evolve(rows[index], cells=cells)
    return rows


def _control_for(row: Row, rows: Sequence[Row]) -> Cell | None:
    """Random heads in the row itself; where a rule counts heads, those nearest in number, at most an eighth off."""
    if CONTROL in row.cells or row.mean_heads is None:
        return row.cells.get(CONTROL)
    near = [
        (abs(other.mean_heads - row.mean_heads), other.cells[CONTROL])
        for other in rows
        if other.budget == row.budget and CONTROL in other.cells and other.mean_heads is not None
    ]
    distance, control = min(near, key=lambda pair: pair[0], default=(math.inf, None))
    return control if distance <= row.all_heads / 8 else None


def _paired_cells(row: Row, control: Cell | None, digits: int) -> dict[str, Cell]:
    top = max(round(cell.value, digits) for cell in row.cells.values())

    def against(cell: Cell, reference: Cell | None) -> Difference | None:
        return None if reference is None or cell.role == reference.role else paired(cell.units, reference.units)

    return {
        name: attrs.evolve(
            cell,
            best=len(row.cells) > 1 and round(cell.value, digits) == top,
            against_baseline=against(cell, row.cells.get(BASELINE)),
            against_control=against(cell, control),
        )
        for name, cell in row.cells.items()
    }
