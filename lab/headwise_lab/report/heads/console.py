"""The short table of head selection that a command prints when it ends."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from headwise_lab.report.heads.comparison import Cell, Comparison, HeadRow
from headwise_lab.report.page.facts import signed
from headwise_lab.report.page.grid import number
from headwise_lab.report.page.terminal import STYLES
from headwise_lab.report.trials import Trial, recall
from headwise_lab.terminal.tables import text_table


def heads_table(trials: Sequence[Trial], comparisons: Sequence[Comparison]) -> Table:
    """Strategy, heads, score ± SE, paired difference to all heads and its verdict, recall."""
    table = text_table(("Strategy", "Heads", "Score ± SE", "To all heads ± SE", "", "Recall"))
    for trial in (trial for trial in trials if not trial.selects_heads):
        rule = trial.name("token_pruning")
        label = f"{trial.benchmark}, " + ("unpruned" if rule == "none" else f"{rule} tokens, {trial.budget}")
        table.add_row(label, "-", _score(trial.value, trial.se), "", "", number(recall(trial)))
    for comparison in comparisons:
        _add(table, comparison)
    return table


def _score(value: float, se: float | None) -> str:
    return f"{value:.2f} ± {number(se)}"


def _add(table: Table, comparison: Comparison) -> None:
    several = len({row.budget for row in comparison.rows}) > 1
    shown: set[str] = set()
    budget = ""
    for row, name, cell in comparison.cells():
        if not budget or (several and row.budget != budget):
            table.add_section()
            table.add_row(Text(f"{comparison.title}, {row.budget}", style="bold"))
            shown.clear()
        budget = row.budget
        if cell.role != "baseline" or name not in shown:
            _add_cell(table, row, name, cell)
        shown.add(name)


def _add_cell(table: Table, row: HeadRow, name: str, cell: Cell) -> None:
    verdict = "recommended" if cell.recommended else cell.verdict
    style = STYLES[cell.verdict]
    table.add_row(
        Text(name),
        "all" if cell.role == "baseline" else row.head_label,
        Text(_score(cell.value, cell.se), style="bold" if cell.best else ""),
        Text("" if cell.role == "baseline" else signed(cell.against_baseline), style=style),
        Text(verdict, style=style),
        number(recall(cell.trials[-1])),
    )
