"""The tables of head selection as grids, and the long CSV rows that hold every field of a record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from headwise_lab.report.heads.comparison import BASELINE, CONTROL, Cell, Comparison, HeadRow
from headwise_lab.report.page import facts
from headwise_lab.report.page.facts import sign_of, signed
from headwise_lab.report.page.grid import MISSING, Grid, Mark, flat, number
from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import Difference
from headwise_lab.stats.rule import stated
from headwise_lab.store.record_types import Overlap


def scores(comparison: Comparison) -> Grid:
    """The scores: budget and head count down, strategies across; ``headwise report --table`` reads this layout."""
    rows: list[list[str | Mark]] = []
    previous = ""
    for row in comparison.rows:
        budget: str | Mark = Mark(row.budget, bold=True) if row.budget != previous else ""
        previous = row.budget
        marks = [_score(row, name, comparison.digits) for name in comparison.columns]
        rows.append([budget, row.head_label, *marks])
    caption = ". ".join(filter(None, (f"{comparison.metric}, in the benchmark's scale", stated(comparison.family()))))
    header = ["Token", "Head", *comparison.columns]
    return Grid.of(f"{comparison.title} results", comparison.slug, header, rows, caption)


def _score(row: HeadRow, name: str, digits: int) -> Mark:
    cell = row.cells.get(name)
    if cell is None:
        return Mark(MISSING)
    return Mark(
        text=number(cell.value, digits),
        bold=cell.best,
        verdict=sign_of(cell.against_baseline),
        note="" if cell.role == "baseline" else signed(cell.against_baseline, digits),
        hint=cell_hint(cell),
        anchor=cell.trials[-1].id,
        recommended=cell.recommended,
        records=tuple(trial.id for trial in cell.trials),
        data=_data(row, name, cell),
    )


def _data(row: HeadRow, name: str, cell: Cell) -> dict[str, object]:
    """All facts about a cell."""
    shown = {"value": cell.value, "se": cell.se, "n": cell.n, "units": len(cell.units) or None, "seeds": cell.seeds}
    where = {"method": name, "heads": row.head_label, "budget": row.budget, "best": cell.best}
    return {
        **facts.figure(cell.trials),
        **facts.known(shown | where),
        **facts.difference(cell.against_baseline, BASELINE),
        **facts.difference(cell.against_control, CONTROL, "to_random_"),
    }


def cell_hint(cell: Cell) -> str:
    """The tooltip of a cell: n, SE, differences, strategy texts and commands, a line each."""
    seeds = f", {cell.seeds} seeds" if cell.seeds > 1 else ""
    lines = [f"n={cell.n}, SE {number(cell.se)}{seeds}"]
    lines += facts.sentences(cell.against_baseline, "all heads")
    lines += facts.sentences(cell.against_control, "random heads")
    for trial in cell.trials:
        lines += [trial.strategies, trial.record.command or ""]
    return "\n".join(filter(None, lines))


def differences(comparison: Comparison) -> Grid:
    """Paired differences to all heads and to random heads, with interval, p, and p after the correction."""
    controlled = any(cell.against_control for _, _, cell in comparison.cells())
    rows: list[list[str | Mark]] = [
        [row.budget, row.head_label, name, *_differences(row, name, cell, controlled=controlled)]
        for row, name, cell in comparison.cells()
        if cell.role != "baseline"
    ]
    header = ["Token", "Head", "Strategy", "To all heads ± SE", "95 % interval", "p", "Adjusted p"]
    header += ["To random heads ± SE", "95 % interval, random", "p, random", "Adjusted p, random"] * controlled
    caption = stated(comparison.family())
    title = f"{comparison.title}: difference to all heads"
    return Grid.of(title, f"{comparison.slug}-differences", [*header, "Pairs", "Verdict"], rows, caption)


def _differences(row: HeadRow, name: str, cell: Cell, *, controlled: bool) -> list[str | Mark]:
    base, control = cell.against_baseline, cell.against_control
    shown = Mark(
        signed(base),
        verdict=sign_of(base),
        hint=cell_hint(cell),
        recommended=cell.recommended,
        records=tuple(trial.id for trial in cell.trials),
        data=_data(row, name, cell),
    )
    to_control: list[str | Mark] = [Mark(signed(control), verdict=sign_of(control)), *facts.certainty(control)]
    return [
        shown,
        *facts.certainty(base),
        *(to_control if controlled else []),
        str(base.n) if base else MISSING,
        cell.verdict or MISSING,
    ]


def overlap(comparison: Comparison) -> Grid | None:
    """How well the kept tokens cover the boxes of the question; None where no trial has such figures."""
    rows: list[list[str | Mark]] = []
    for row, name, cell in comparison.cells():
        record = cell.trials[-1].record
        found = record.overlap or Overlap()
        figures = [found.recall, found.precision, found.iou, found.lift]
        figures += [record.attention.concentration if record.attention else None, record.diversity]
        if any(figure is not None for figure in figures):
            rows.append([row.budget, row.head_label, Mark(name, anchor=record.id), *map(number, figures)])
    if not rows:
        return None
    header = ["Token", "Head", "Strategy", "Recall", "Precision", "IoU", "Lift", "Concentration", "Diversity"]
    caption = (
        "Kept tokens against the tokens of the boxes a question is about. Lift: recall over that of random keeping."
        " Concentration: share of the image attention on the kept tokens. Diversity: 1 - their mean pairwise cosine."
    )
    return Grid.of(f"{comparison.title}: kept tokens", f"{comparison.slug}-overlap", header, rows, caption)


def wins(counted: Mapping[str, tuple[int, int]], title: str, slug: str) -> Grid:
    """In how many rows each strategy is best (ties included), and in how many it alone is best."""
    rows = [[name, str(best), str(sole)] for name, (best, sole) in counted.items()]
    return Grid.of(title, slug, ["Strategy", "Wins", "Sole wins"], rows)


def records(trials: Sequence[Trial]) -> Grid:
    """The list of records that all figures come from."""
    rows: list[list[str | Mark]] = [
        [
            Mark(trial.id, anchor=trial.id),
            trial.benchmark,
            trial.strategies,
            trial.budget,
            f"{number(trial.value)} ± {number(trial.se)}",
            str(trial.record.n),
            MISSING if trial.record.seed is None else str(trial.record.seed),
            trial.record.command or MISSING,
            facts.where(trial.record) or MISSING,
            json.dumps(trial.record.notes or {}, ensure_ascii=False, sort_keys=True),
        ]
        for trial in trials
    ]
    header = ["Record", "Benchmark", "Strategies", "Budget", "Score ± SE", "n", "Seed", "Command", "Where", "Notes"]
    return Grid.of("Records", "records", header, rows)


def long_rows(comparison: Comparison) -> list[dict[str, object]]:
    """A flat row per cell and record: figures, differences, verdict and every field of the record."""
    return [
        {**_facts(row, name, cell), **flat(trial.record.to_json())}
        for row, name, cell in comparison.cells()
        for trial in cell.trials
    ]


def _facts(row: HeadRow, name: str, cell: Cell) -> dict[str, object]:
    base, control = cell.against_baseline, cell.against_control
    return {
        "row_budget": row.budget,
        "row_heads": row.head_label,
        "column": name,
        "value": cell.value,
        "se": cell.se,
        "units": cell.n,
        "seeds": cell.seeds,
        "best": cell.best,
        "difference": base and base.value,
        "difference_se": base and base.se,
        "pairs": base and base.n,
        "verdict": cell.verdict,
        **_tested(base),
        "difference_to_random": control and control.value,
        "difference_to_random_se": control and control.se,
        **_tested(control, "_to_random"),
        "recommended": cell.recommended,
    }


def _tested(found: Difference | None, ending: str = "") -> dict[str, object]:
    """The columns that say how sure a difference is; they are the same where there is none."""
    columns = {
        "difference_low": found and found.low,
        "difference_high": found and found.high,
        "test": found and found.test,
        "p": found and found.p,
        "adjusted_p": found and found.adjusted,
        "family": found and found.family,
        "left_out": found and sum(found.left_out),
        "interpolated_between": found and " and ".join(found.between),
        "interpolation_error": found and found.allowance,
    }
    return {f"{key}{ending}": value for key, value in columns.items()}
