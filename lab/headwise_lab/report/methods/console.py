"""The short table of methods that a command prints when it ends."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from headwise_lab.report.heads.efficiency import cost_of
from headwise_lab.report.methods.methods import MethodResult, Methods
from headwise_lab.report.page.facts import signed
from headwise_lab.report.page.grid import number
from headwise_lab.report.page.terminal import STYLES
from headwise_lab.terminal.tables import text_table


def methods_table(compared: Sequence[Methods]) -> Table:
    """Method, score ± SE, paired difference to fastv, prefill as a share of the unpruned model's, per benchmark."""
    table = text_table(("Method", "Score ± SE", "To fastv ± SE", "To unpruned ± SE", "Prefill share"))
    for methods in compared:
        if methods.unpruned is not None:
            score = f"{number(methods.unpruned.value)} ± {number(methods.unpruned.se)}"
            table.add_row(Text(f"{methods.benchmark}, unpruned", style="bold"), score, "", "", "")
        for budget in methods.budgets:
            _add(table, methods, budget)
    return table


def _add(table: Table, methods: Methods, budget: str) -> None:
    table.add_section()
    table.add_row(Text(f"{methods.benchmark}, {budget}", style="bold"))
    for result in methods.at(budget):
        table.add_row(*_row(result))


def _row(result: MethodResult) -> list[str | Text]:
    trial, gap = result.trial, result.to_reference
    return [
        Text(result.name),
        Text(f"{number(trial.value)} ± {number(trial.se)}", style="bold" if result.best else ""),
        Text(signed(gap) if gap else "", style=STYLES[gap.verdict] if gap else ""),
        signed(result.to_unpruned) if result.to_unpruned else "",
        number(cost_of(trial).prefill_share, 3),
    ]
