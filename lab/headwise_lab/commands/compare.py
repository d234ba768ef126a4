"""``headwise compare``: two output folders, or two trials, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwise_lab.report.side_by_side import Pair

By = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="What trials are matched by: model, benchmark, strategies, settings, budget, recipe, dtype, a hook, ...",
    ),
]


def compare(
    left: Annotated[str, typer.Argument(metavar="A", help="Output folder, or FOLDER:ID for one trial of it.")],
    right: Annotated[str, typer.Argument(metavar="B", help="Output folder, or FOLDER:ID for one trial of it.")],
    *,
    by: By = "model,benchmark,strategies,settings,budget",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the table: .md, .csv or .tex by the name.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
    allow_different: Annotated[
        bool,
        typer.Option("--allow-different", help="Compare trials of other questions or weights on what they share."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two output folders, or two trials, question by question.

    Trials are matched by what they were asked to do; `--by benchmark,budget` compares folders whose strategies differ.
    Each row shows B - A with its standard error, a bootstrap interval, an exact test where answers are right or wrong,
    and Holm's correction over the table.
    """
    from headwise_lab.report.side_by_side import side_by_side
    from headwise_lab.report.side_by_side_page import as_dict, heading, terminal
    from headwise_lab.report.sides import Side
    from headwise_lab.whole_files import free

    if out is not None:
        if out.suffix not in (".md", ".csv", ".tex"):
            raise DataError(f"--out {out} is neither .md, .csv nor .tex; the ending says what is written")
        free([out], overwrite=overwrite)
    words = [word.strip() for word in by.split(",") if word.strip()]
    pairs, warnings = side_by_side(Side.of(left), Side.of(right), words, allow_different=allow_different)
    if out is not None:
        _write(out, pairs, left, right)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        typer.echo(json.dumps([as_dict(pair) for pair in pairs], ensure_ascii=False))
        return
    typer.echo("\n".join(heading(pairs, left, right)))
    _print(terminal(pairs))


def _write(out: Path, pairs: Sequence[Pair], left: str, right: str) -> None:
    from headwise_lab.report.grid import grid_csv, latex
    from headwise_lab.report.side_by_side_page import grid, page
    from headwise_lab.whole_files import whole

    texts = {".md": lambda: page(pairs, left, right), ".csv": lambda: grid_csv(grid(pairs))}
    text = texts.get(out.suffix, lambda: latex(grid(pairs)))()
    with whole([out]) as (place,):
        place.write_text(text, encoding="utf-8", newline="\n")


def _print(table: object) -> None:
    """Print a table that a narrow terminal wraps rather than cuts off."""
    from rich.console import Console

    needed = Console(width=1000).measure(table).maximum  # type: ignore[arg-type]
    Console(width=max(Console().width, needed), soft_wrap=True, highlight=False).print(table)
