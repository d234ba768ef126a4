"""``headwise strategies``: what is installed, without importing any of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from headwise.listing import Row, rows


def strategies(
    hook: Annotated[
        str | None,
        typer.Option(help="List this hook only; also: observers, recipe, adapter, benchmark."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List the installed strategies.

    Hook, name, who ships it, one-line summary, and options with defaults; nothing is imported.
    """
    found = rows(hook)
    if as_json:
        typer.echo(json.dumps([row.record() for row in found], indent=2, default=str))
    elif found:
        _print_table(found)
    else:
        typer.echo(f"no {hook or 'strategy'} is installed")


def _print_table(found: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("hook", "name", "from", "summary", "options"):
        table.add_column(title, overflow="fold", no_wrap=title in ("hook", "name"))
    for row in found:
        owner = f"{row.distribution} {row.version}"
        name = f"{row.name} (clash)" if row.clash else row.name
        # Text, because brackets in a summary are no markup.
        table.add_row(*map(Text, (row.hook, name, owner, row.description.summary or "?", row.options_text)))
    Console(soft_wrap=False).print(table)
    for note in _notes(found):
        typer.echo(note)


def _notes(found: Sequence[Row]) -> list[str]:
    notes = []
    if any(row.clash for row in found):
        notes.append("clash: two distributions ship this name; write OWNER/NAME to choose one")
    if any(row.description.summary is None or row.description.options is None for row in found):
        notes.append("?: not readable without importing it; see headwise show NAME")
    return notes
