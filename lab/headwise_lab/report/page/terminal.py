"""The short tables that a command prints when it ends."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from headwise_lab.stats.differences import BETTER, SAME, WORSE

STYLES = {BETTER: "green", WORSE: "red", SAME: "dim", "": ""}
"""Verdict -> how its text is coloured."""


def short_table(header: Sequence[str], labels: int = 1, title: str | None = None) -> Table:
    """An empty table. The first ``labels`` columns and those without a name hold words, all others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place < labels or not name else "right", no_wrap=True)
    return table
