"""Per-question outcomes as Parquet, one file for each trial; reading returns exactly what was written.

A field whose values all have one type becomes a column of that type (lists too), so that other programs can read the
file. Values that no column type holds exactly, such as whole numbers among fractions or nested objects, become JSON
text. The column's metadata says so, and says whether an empty cell is a null or a missing field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwise.errors import DataError

if TYPE_CHECKING:
    import pyarrow

ENDING = ".parquet"
_MARK = b"headwise"
_JSON, _ABSENT = b"json", b"absent"
_LARGEST = 2**63


def encode(outcomes: Sequence[Mapping[str, object]]) -> bytes:
    """The content of the file for a trial's outcomes: at least one, each a JSON object with at least one field.

    Raises ValueError for numbers that are not finite, and TypeError for values that JSON does not have.
    """
    import pyarrow
    from pyarrow import parquet

    rows = json.loads(json.dumps([dict(outcome) for outcome in outcomes], allow_nan=False))
    columns = {name: _column(name, rows) for name in dict.fromkeys(name for row in rows for name in row)}
    schema = pyarrow.schema([field for field, _ in columns.values()])
    table = pyarrow.Table.from_arrays([cells for _, cells in columns.values()], schema=schema)
    if table.num_rows != len(rows):
        raise ValueError("outcomes without any field")
    content = BytesIO()
    parquet.write_table(table, content, compression="zstd")
    return content.getvalue()


def decode(content: bytes, where: str) -> list[dict[str, object]]:
    """The outcomes in the content of a file; raises DataError, which says ``where``, if that is not whole."""
    with _whole(where):
        table = _file(BytesIO(content)).read(use_threads=False)
        marks = [(field.metadata or {}).get(_MARK, b"") for field in table.schema]
        rows: list[dict[str, object]] = [{} for _ in range(table.num_rows)]
        for name, mark, column in zip(table.column_names, marks, table.columns, strict=True):
            _check_cells(column)
            for row, value in zip(rows, column.to_pylist(), strict=True):
                if value is not None or not mark:
                    row[name] = json.loads(value, parse_constant=_refused) if mark == _JSON else value
    return rows


def count(content: bytes | Path, where: str) -> int:
    """The number of outcomes in a file, read from its end alone; raises DataError where that is not whole."""
    with _whole(where):
        return int(_file(content if isinstance(content, Path) else BytesIO(content)).metadata.num_rows)


def _file(source: BytesIO | Path) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(source)


@contextmanager
def _whole(where: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{where} cannot be read (No such file or directory); run the trial again") from error
    except (OSError, TypeError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{where} is torn, or headwise did not write it; run the trial again") from error


def _check_cells(column: pyarrow.ChunkedArray) -> None:
    """Raise ValueError for cells that :func:`encode` never writes, such as bytes, dates and NaN."""
    import pyarrow
    from pyarrow import compute

    while pyarrow.types.is_list(column.type):
        column = compute.list_flatten(column)
    if column.type not in {pyarrow.null(), pyarrow.string(), pyarrow.bool_(), pyarrow.int64(), pyarrow.float64()}:
        raise ValueError(f"cells of type {column.type}")
    if column.type == pyarrow.float64() and compute.all(compute.is_finite(column)).as_py() is False:
        raise ValueError("a number that is not finite")


def _refused(constant: str) -> float:
    raise ValueError(constant)


def _column(name: str, rows: Sequence[Mapping[str, object]]) -> tuple[pyarrow.Field, pyarrow.Array]:
    """The column of one field. An empty cell is a null, or in a column with a mark, a missing field."""
    import pyarrow

    present = [row[name] for row in rows if name in row]
    everywhere = len(present) == len(rows)
    kind = _kind([value for value in present if value is not None])
    if kind is not None and (everywhere or None not in present):
        marks = {} if everywhere else {_MARK: _ABSENT}
        cells = [row.get(name) for row in rows]
    else:
        kind, marks = pyarrow.string(), {_MARK: _JSON}
        cells = [json.dumps(row[name]) if name in row else None for row in rows]
    return pyarrow.field(name, kind, metadata=marks), pyarrow.array(cells, kind)


def _kind(values: Sequence[Any]) -> pyarrow.DataType | None:
    """The column type that holds these values (none is null) exactly; None where there is no such type."""
    import pyarrow

    found = {type(value) for value in values}
    if not found:
        return pyarrow.null()
    if len(found) > 1:
        return None
    (kind,) = found
    if kind is list:
        inside = [item for value in values for item in value]
        item_kind = None if None in inside else _kind(inside)
        return None if item_kind is None else pyarrow.list_(item_kind)
    if kind is int and not all(-_LARGEST <= value < _LARGEST for value in values):
        return None
    if kind is str and not all(map(_is_text, values)):
        return None
    return {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}.get(kind)


def _is_text(value: str) -> bool:
    """Whether UTF-8 can encode a text; it cannot encode lone surrogates, which JSON can contain."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
