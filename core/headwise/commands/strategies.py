"""``headwise strategies``: what is installed, without importing any of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated

import typer

from headwise.listing import Row, rows
from headwise.output import answer
from headwise.printing import coloured, columns, fitted, printable, say


def strategies(
    hook: Annotated[
        str | None,
        typer.Option(help="List this hook only; also: observers, recipe, adapter, benchmark."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List the installed strategies and recipes.

    Hook, name, who ships it, one-line summary, and options with defaults; nothing is imported.
    """
    found = rows(hook)
    if as_json:
        answer(json.dumps([row.record() for row in found], indent=2, default=str))
    elif found:
        say("\n\n".join(_blocks(found, columns(sys.stdout))), set_already=True)
    else:
        say(f"no {hook or 'strategy'} is installed")


def _blocks(found: Sequence[Row], width: int | None) -> list[str]:
    """One block per hook, one entry per strategy; then what the marks mean that were used."""
    blocks = [
        "\n".join([coloured(printable(hook)), *(_entry(row, width) for row in of_hook)])
        for hook, of_hook in groupby(found, key=lambda row: row.hook)
    ]
    return [*blocks, *(fitted(note, width) for note in _notes(found))]


def _entry(row: Row, width: int | None) -> str:
    clash = "  CLASH" if row.clash else ""
    options = f"  [{row.options_text}]" if row.options_text else ""
    name = printable(row.name)
    rest = f"({row.distribution} {row.version}){options}{clash}\n      {row.description.told}"
    return fitted(f"  {name}  {printable(rest)}", width).replace(name, coloured(name, "cyan"), 1)


def _notes(found: Sequence[Row]) -> list[str]:
    notes = []
    if any(row.clash for row in found):
        notes.append("CLASH: two distributions ship this name; write OWNER/NAME to choose one")
    if any("?" in row.options_text for row in found):
        notes.append("?: not readable without importing it; see headwise show NAME")
    return notes
