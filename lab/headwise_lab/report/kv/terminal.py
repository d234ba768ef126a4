"""The short table of KV runs that a command prints when it ends."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from headwise_lab.report.kv.judgement import JUDGED, JudgedRun, JudgedSetting
from headwise_lab.report.kv.runs import PERMUTED
from headwise_lab.report.kv.tables import shown_verdict
from headwise_lab.report.kv.verdicts import change
from headwise_lab.report.page.grid import MISSING, number
from headwise_lab.report.page.terminal import STYLES
from headwise_lab.terminal.tables import text_table

_COLUMNS = ("Run", "Context", "Perplexity ± SE", "To uniform ± SE", "", "To permuted ± SE")


def kv_table(title: str, judged: JudgedSetting) -> Table:
    """The runs of one model on one text. The many permuted controls stand in the report only."""
    table = text_table(_COLUMNS, title=title)
    table.caption, table.caption_justify = judged.stated(*JUDGED), "left"
    for one in judged.judgements:
        if one.run.part != PERMUTED:
            table.add_row(*_row(one))
    return table


def _row(one: JudgedRun) -> list[str | Text]:
    style = STYLES[one.verdict] if shown_verdict(one) == one.verdict else "dim"
    return [
        Text(one.run.name),
        number(one.run.context, 1),
        f"{number(one.run.ppl)} ± {number(one.run.ppl_se)}",
        Text(change(one.to_uniform) if one.to_uniform else "", style=style),
        Text("" if shown_verdict(one) == MISSING else shown_verdict(one), style=style),
        Text(change(one.to_permuted) if one.to_permuted else "", style=STYLES[one.against_permuted]),
    ]
