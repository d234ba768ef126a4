"""The short table of KV runs that a command prints when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from headwise_lab.report.kv.judgement import JUDGED, JudgedRun
from headwise_lab.report.kv.runs import PERMUTED
from headwise_lab.report.kv.section import KvSection, gather_kv
from headwise_lab.report.kv.tables import verdict
from headwise_lab.report.kv.verdicts import change
from headwise_lab.report.page.grid import MISSING, number
from headwise_lab.stats.differences import BETTER, SAME, WORSE
from headwise_lab.store.record_types import Record

_STYLES = {BETTER: "green", WORSE: "red", SAME: "dim"}
_COLUMNS = ("Run", "Context", "Perplexity ± SE", "To uniform ± SE", "", "To permuted ± SE")


def kv_tables(records: Sequence[Record], folder: Path) -> list[Table]:
    """One table per model and text; the permuted controls, many and alike, are left to the report."""
    return [_table(section) for section in gather_kv(folder, records).sections]


def _table(section: KvSection) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=section.title, title_justify="left")
    table.caption, table.caption_justify = section.judged.stated(*JUDGED), "left"
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("Run", "") else "right", no_wrap=True)
    for one in section.judged.judgements:
        if one.run.part != PERMUTED:
            table.add_row(*_row(one))
    return table


def _row(one: JudgedRun) -> list[str | Text]:
    style = _STYLES.get(one.verdict, "") if verdict(one) == one.verdict else "dim"
    return [
        Text(one.run.name),
        number(one.run.context, 1),
        f"{number(one.run.ppl)} ± {number(one.run.ppl_se)}",
        Text(change(one.to_uniform) if one.to_uniform else "", style=style),
        Text("" if verdict(one) == MISSING else verdict(one), style=style),
        Text(change(one.to_permuted) if one.to_permuted else "", style=_STYLES.get(one.against_permuted, "")),
    ]
