"""``headwise report A B``: compares output folders, prints the tables and writes files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from headwise.errors import DataError
from headwise.hints import number_of
from headwise.output import answer
from headwise.printing import say
from headwise.verbosity import warn

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
    """Compare output folders with the first; print the tables, and write the files that ``--out`` names."""
    from headwise_lab.report.compare.files import compare_all, write
    from headwise_lab.report.compare.page import as_dict, heading, terminal
    from headwise_lab.terminal.console import wide_enough

    if options.out is not None:
        _check(options.out, overwrite=options.overwrite)
    with ExitStack() as stack:
        sides = [stack.enter_context(_side(text)) for text in folders]
        compared = compare_all(sides, options.by, allow_different=options.allow_different)
        written = [] if options.out is None else write(compared, options.out, options.title)
    for warning in compared.warnings:
        warn(f"{_as_called(warning, sides)}")
    if options.as_json:
        pairs = [as_dict(part, pair) for part in compared.parts for pair in part.pairs]
        answer(json.dumps(pairs, ensure_ascii=False))
        return
    for part in compared.parts:
        say("\n".join(heading(part, folders[0])))
        table = terminal(part)
        wide_enough([table]).print(table)
    if options.out is not None:
        shown = options.out / "report.html" if len(written) > 1 else options.out
        say(
            f"Wrote {shown}"
            + (f" and {number_of(len(written) - 1, 'more file')} beside it." if len(written) > 1 else ".")
        )


def _check(out: Path, *, overwrite: bool) -> None:
    """Raise DataError where ``--out`` cannot be written, or exists already and may not be replaced."""
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
    """One side of the comparison; inside, its outcomes are local files, also if it is behind a URL."""
    from headwise_lab.report.compare.sides import Side, named
    from headwise_lab.store.working_copy import at_hand

    folder, identity = named(text)
    with at_hand(folder) as local:
        yield Side.read(local, identity, text)


def _as_called(message: str, sides: Sequence[Side]) -> str:
    """The message with the names that the user gave: with a URL instead of its local copy."""
    from headwise_lab.report.compare.sides import named

    for side in sides:
        message = message.replace(str(side.folder), str(named(side.called)[0]))
    return message
