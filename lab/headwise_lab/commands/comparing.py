"""How ``headwise report A B`` compares output folders: what it reads, prints and writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from headwise.errors import DataError
from headwise.output import answer
from headwise.printing import say

if TYPE_CHECKING:
    from headwise_lab.report.compare.sides import Side


@attrs.frozen
class Comparing:
    """The options of a comparison."""

    by: Sequence[str]
    allow_different: bool
    out: Path | None
    overwrite: bool
    title: str | None
    as_json: bool


def compare(folders: Sequence[str], options: Comparing) -> None:
    """Compare output folders with the first; print the tables, and write what ``--out`` names."""
    from headwise_lab.report.compare.files import compare_all, write
    from headwise_lab.report.compare.page import as_dict, heading, terminal

    if options.out is not None:
        _check(options.out, overwrite=options.overwrite)
    with ExitStack() as stack:
        sides = [stack.enter_context(_side(text)) for text in folders]
        compared = compare_all(sides, options.by, allow_different=options.allow_different)
        written = [] if options.out is None else write(compared, options.out, options.title)
    for warning in compared.warnings:
        say(f"warning: {_as_called(warning, sides)}", err=True)
    if options.as_json:
        told = [as_dict(part, pair) for part in compared.parts for pair in part.pairs]
        answer(json.dumps(told, ensure_ascii=False))
        return
    for part in compared.parts:
        say("\n".join(heading(part, folders[0])))
        _print(terminal(part))
    if options.out is not None:
        shown = options.out / "report.html" if len(written) > 1 else options.out
        say(f"Wrote {shown}" + (f" and {len(written) - 1} more files beside it." if len(written) > 1 else "."))


def _check(out: Path, *, overwrite: bool) -> None:
    """Raise DataError where ``--out`` names nothing that can be written, or what is there already."""
    from headwise_lab.report.compare.files import ENDINGS
    from headwise_lab.store.atomic import free

    if out.suffix in ENDINGS:
        free([out], overwrite=overwrite)
    elif out.suffix and not out.is_dir():
        raise DataError(
            f"--out {out} is neither .html, .md, .csv nor .tex; the ending says what is written, and a name without"
            " one is a folder for everything"
        )
    else:
        free([out / "report.html", out / "report.md"], overwrite=overwrite)


@contextmanager
def _side(text: str) -> Iterator[Side]:
    """One side, with its outcomes at hand inside, also where it lies behind a URL."""
    from headwise_lab.report.compare.sides import Side, named
    from headwise_lab.store.working_copy import at_hand

    folder, identity = named(text)
    with at_hand(folder) as local:
        yield Side.read(local, identity, text)


def _as_called(told: str, sides: Sequence[Side]) -> str:
    """What is told of a copy is told of the URL that it was made of."""
    from headwise_lab.report.compare.sides import named

    for side in sides:
        told = told.replace(str(side.folder), str(named(side.called)[0]))
    return told


def _print(table: object) -> None:
    """Print a table that a narrow terminal wraps rather than cuts off."""
    from headwise_lab.terminal import Terminal

    needed = Terminal(width=1000).measure(table).maximum  # type: ignore[arg-type]
    Terminal(width=max(Terminal().width, needed), soft_wrap=True).print(table)
