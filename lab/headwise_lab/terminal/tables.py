"""Tables in a terminal: no lines, bold header, nothing cut off within a cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table


def text_table(header: Sequence[str], rows: Iterable[Sequence[RenderableType]] = (), *, left: int = 1) -> Table:
    """A table whose first ``left`` columns, and columns without a name, are left-aligned; others are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < left or not name else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
