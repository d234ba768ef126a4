"""Writes tables: two CSV or Parquet files, or one DuckDB database. DuckDB is in the extra ``export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from headwise.errors import DataError
from headwise_lab.exporting.columns import BOOLEAN, INTEGER, REAL, TEXT
from headwise_lab.exporting.tables import Table
from headwise_lab.store.atomic import whole
from headwise_lab.store.csv_cells import CsvRows

NAMES = ("trials", "outcomes")
_NEEDED = {"csv": (), "parquet": (), "duckdb": ("duckdb",)}
_SQL = {TEXT: "VARCHAR", INTEGER: "BIGINT", REAL: "DOUBLE", BOOLEAN: "BOOLEAN"}


def targets(out: Path, to: str) -> list[Path]:
    """The files that an export to ``out`` writes: the database, or ``NAME-trials`` and ``NAME-outcomes``.

    Raises DataError for an unknown format, or one whose packages are not installed.
    """
    if to not in FORMATS:
        raise DataError(f"--to {to!r} is no format of an export; choose {', '.join(FORMATS)}")
    if out.name in ("", ".."):
        raise DataError(f"--out {out} is a folder; give the name of a file")
    for package in _NEEDED[to]:
        try:
            import_module(package)
        except ImportError as error:
            raise DataError(
                f"--to {to} needs {package}: pip install 'headwise[export]', or give --to parquet"
            ) from error
    if to == "duckdb":
        return [out if out.suffix else out.with_name(f"{out.name}.duckdb")]
    stem = out.stem if out.suffix == f".{to}" else out.name
    return [out.with_name(f"{stem}-{name}.{to}") for name in NAMES]


def export(tables: Sequence[Table], paths: Sequence[Path], to: str) -> None:
    """Write tables to the files that ``targets`` named: all of them, or none.

    Raises DataError in one sentence where a file cannot be written.
    """
    with whole(paths) as places:
        FORMATS[to](tables, places)


def _csv(tables: Sequence[Table], places: Sequence[Path]) -> None:
    """UTF-8 with a header; None is an empty cell, booleans are ``true`` and ``false``, numbers read back unchanged.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    for table, place in zip(tables, places, strict=True):
        with place.open("w", encoding="utf-8", newline="") as stream:
            written = CsvRows(stream)
            written.add(table.columns)
            for rows in table.batches():
                for row in rows:
                    written.add(map(_plain, row.values()))


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _parquet(tables: Sequence[Table], places: Sequence[Path]) -> None:
    parquet = import_module("pyarrow.parquet")
    for table, place in zip(tables, places, strict=True):
        with parquet.ParquetWriter(place, _schema(table.columns), compression="zstd") as writer:
            for rows in table.batches():
                writer.write_table(_arrow(table, rows))


def _duckdb(tables: Sequence[Table], places: Sequence[Path]) -> None:
    """One database with both tables; a column whose name differs from another only in case gets a number."""
    duckdb = import_module("duckdb")
    try:
        with duckdb.connect(str(places[0])) as database:
            for table in tables:
                _insert(database, table)
    except duckdb.IOException as error:
        raise OSError(str(error).partition("\n")[0]) from error


def _insert(database: Any, table: Table) -> None:
    names = [name.replace('"', '""') for name in _apart(list(table.columns))]
    columns = ", ".join(f'"{name}" {_SQL[kind]}' for name, kind in zip(names, table.columns.values(), strict=True))
    database.execute(f"CREATE TABLE {table.name} ({columns})")
    for rows in table.batches():
        database.register("batch", _arrow(table, rows))
        database.execute(f"INSERT INTO {table.name} SELECT * FROM batch")
        database.unregister("batch")


def _apart(names: Sequence[str]) -> list[str]:
    """Names made different in more than case, as SQL requires; a number is added where needed."""
    taken: set[str] = set()
    found = []
    for name in names:
        number, unique = 1, name
        while unique.lower() in taken:
            number += 1
            unique = f"{name}~{number}"
        taken.add(unique.lower())
        found.append(unique)
    return found


def _schema(columns: Mapping[str, str]) -> Any:
    arrow = import_module("pyarrow")
    kinds = {TEXT: arrow.string(), INTEGER: arrow.int64(), REAL: arrow.float64(), BOOLEAN: arrow.bool_()}
    return arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])


def _arrow(table: Table, rows: Sequence[Mapping[str, object]]) -> Any:
    return import_module("pyarrow").Table.from_pylist(list(rows), schema=_schema(table.columns))


FORMATS = {"csv": _csv, "parquet": _parquet, "duckdb": _duckdb}
"""Format -> the function that writes its files."""
