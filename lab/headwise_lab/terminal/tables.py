"""Tables in a terminal: no lines, bold header, nothing cut off within a cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GAP = 2  # blanks between columns


class FittingTable(Table):
    """A table that a terminal too narrow for it shows row by row, each cell on a line of its own below its row's name.

    Where nothing is a terminal, such as a file, lines are as long as they are.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or its rows one below the other."""
        if not console.is_terminal or self._needed(console) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        yield from (part for part in (self.title,) if part)
        for row in zip(*(column.cells for column in self.columns), strict=True):
            yield from self._row_by_row(row)
        yield from (part for part in (self.caption,) if part)

    def _needed(self, console: Console) -> int:
        """The width below which cells would be broken."""
        widths = []
        for column in self.columns:
            sizes = [console.measure(cell) for cell in (column.header, *column.cells)]
            widths.append(max(size.maximum if column.no_wrap else size.minimum for size in sizes))
        return sum(widths) + GAP * (len(widths) - 1)

    def _row_by_row(self, row: Sequence[RenderableType]) -> Iterator[RenderableType]:
        """The first cell, and below it a line for each other one; what has no name belongs to the cell before it."""
        name, *cells = row
        yield Text(_text(name).plain, style="bold")
        lines = Table.grid(padding=(0, GAP, 0, 0))
        held: list[tuple[str, Text]] = []
        for column, cell in zip(self.columns[1:], cells, strict=True):
            if column.header or not held:
                held.append((_text(column.header).plain, _text(cell)))
            else:
                held[-1] = (held[-1][0], Text(" ").join([held[-1][1], _text(cell)]))
        for header, value in held:
            if value.plain.strip():
                lines.add_row(Text(header, style="dim"), value)
        yield Padding(lines, (0, 0, 0, GAP), expand=False)


def text_table(
    header: Sequence[str], rows: Iterable[Sequence[RenderableType]] = (), *, left: int = 1, title: str | None = None
) -> Table:
    """A table whose first ``left`` columns, and columns without a name, are left-aligned; others are right-aligned."""
    table = FittingTable(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < left or not name else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))
