"""``headwise export``: records and outcomes as flat tables for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.printing import say
from headwise.reading import given_path
from headwise.verbosity import warn


def export(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Output folder or URL of a run, study, sweep or demo.")],
    *,
    to: Annotated[str, typer.Option(help="parquet, csv or duckdb.")] = "parquet",
    out: Annotated[
        Path | None,
        typer.Option(
            callback=given_path,
            metavar="FILE",
            help="The database; for csv and parquet NAME of NAME-trials and NAME-outcomes. [default: DIR/export]",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Write all trials and per-question outcomes of an output folder as two flat tables.

    `trials` has one row per record and `outcomes` one per question, whose `trial` is the `id` of its record. Nested
    fields have dotted names (metric.value), lists are JSON text. The columns that headwise documents come first, in a
    fixed order; others follow by name. Lines that are torn or malformed are left out with a warning.
    """
    from headwise_lab import exporting
    from headwise_lab.store.atomic import free
    from headwise_lab.store.locations import place
    from headwise_lab.store.working_copy import at_hand

    given = place(folder)
    with at_hand(given, writes=out is None) as local:
        paths = exporting.targets(out if out is not None else local / "export", to)
        free(paths, overwrite=overwrite)
        tables, warnings = exporting.read_tables(local)
        exporting.export(tables, paths, to)
    for warning in warnings:
        warn(f"{warning.replace(str(local), str(given))}")
    written = paths if out is not None else [given / path.name for path in paths]
    say(f"Wrote {' and '.join(map(str, written))}.")
