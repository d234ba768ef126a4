"""Reads the results of a run: ``results.jsonl`` (one line for each attempt) and ``outcomes/<id>.parquet``.

A run that was killed leaves at most a torn last line, which is dropped with a warning. Every other damage is an error
that names the file and the line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar, overload

from headwise.errors import DataError
from headwise.printing import printable
from headwise.reading import json_within
from headwise_lab.schema.json_schema import is_number, structured
from headwise_lab.schema.wrong_values import WrongValue
from headwise_lab.store.outcome_types import Outcome, QuestionOutcome
from headwise_lab.store.outcomes import ENDING, count, decode
from headwise_lab.store.record_schema import judged, last_of_each
from headwise_lab.store.record_types import Record

__all__ = [
    "OUTCOMES", "RECORDS", "attempts_in", "has_outcomes", "is_number", "outcomes_in",
    "outcomes_path", "read_lines", "read_outcomes", "read_records", "whole_lines",
]  # fmt: skip

Row = TypeVar("Row", bound=Outcome)

RECORDS = "results.jsonl"
OUTCOMES = "outcomes"
LONGEST_LINE, DEEPEST = 2**24, 50  # bytes; levels of nested lists and objects
TORN = "The last line of {} is torn and was dropped; the run may be unfinished."


def read_records(folder: Path) -> tuple[list[Record], list[str]]:
    """The records of an output folder, and warnings; of records with the same id the last one counts.

    A malformed record is left out, and a warning names it. Raises DataError where ``results.jsonl`` is missing or has
    no usable record.
    """
    path = Path(folder) / RECORDS
    numbered, warnings = whole_lines(path)
    records: list[Record] = []
    for number, data in numbered:
        try:
            records.append(_in_letters(judged(data, f"{path}:{number}")))
        except DataError as error:
            warnings.append(f"{error}; it was left out.")
    if not records:
        why = f" ({warnings[0].rstrip('.')})" if warnings else ""
        raise DataError(
            f"{path} holds no whole record{why}; run `headwise run`, `ablate` or `demo` with --out {folder}"
        )
    return list(last_of_each(records).values()), warnings


def whole_lines(path: Path) -> tuple[list[tuple[int, dict[str, object]]], list[str]]:
    """(line number, object) for every whole line of a JSONL file, and warnings about the other lines.

    Raises DataError where it cannot be read.
    """
    objects: list[tuple[int, dict[str, object]]] = []
    warnings: list[str] = []
    for number, found, torn in _parsed(path):
        if isinstance(found, DataError):
            warnings.append(TORN.format(path.name) if torn else f"{found}; it was left out.")
        else:
            objects.append((number, found))
    return objects, warnings


def _parsed(path: Path) -> Iterator[tuple[int, dict[str, object] | DataError, bool]]:
    """For every line that is not blank: its number, its object or the error, and whether it may be half-written.

    Only the last line can be half-written: it has no newline then.
    """
    pieces = _lines(path)
    for number, piece in enumerate(pieces, 1):
        if piece.strip():
            try:
                yield number, _object(piece, path, number), False
            except DataError as error:
                yield number, error, number == len(pieces)


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the output folder of a run") from error


def _object(piece: bytes, path: Path, number: int) -> dict[str, object]:
    """The JSON object in a line; raises DataError where there is none."""
    if len(piece) > LONGEST_LINE:
        raise DataError(f"{path}:{number} has {len(piece)} bytes, more than a record can have")
    parsed = json_within(piece, f"{path}:{number}", deepest=DEEPEST, torn=True)
    if not isinstance(parsed, dict):
        raise DataError(f"{path}:{number} is not a JSON object")
    return parsed


def attempts_in(folder: Path) -> dict[str, int]:
    """Id of a record -> its lines in ``results.jsonl``, one for each attempt; empty where that cannot be read."""
    try:
        lines, _ = read_lines(folder / RECORDS)
    except DataError:
        return {}
    return dict(Counter(str(data.get("id")) for _, data in lines))


def outcomes_path(folder: Path, identity: str) -> Path:
    """The file with the outcomes of the record ``identity``."""
    return folder / OUTCOMES / f"{identity}{ENDING}"


def has_outcomes(folder: Path, identity: str) -> bool:
    """Whether the file with a record's outcomes exists and is whole."""
    path = outcomes_path(Path(folder), identity)
    try:
        return count(path, str(path)) > 0
    except DataError:
        return False


@overload
def read_outcomes(folder: Path, identity: str) -> list[QuestionOutcome]: ...
@overload
def read_outcomes(folder: Path, identity: str, kind: type[Row]) -> list[Row]: ...
def read_outcomes(folder: Path, identity: str, kind: type[Outcome] = QuestionOutcome) -> Sequence[Outcome]:
    """The outcomes of the record ``identity``, as rows of class ``kind``; raises DataError if missing or malformed."""
    path = outcomes_path(Path(folder), identity)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the output folder of a run") from error
    return outcomes_in(content, str(path), kind)


def outcomes_in(content: bytes, where: str, kind: type[Row]) -> list[Row]:
    """The outcomes in a file's content; raises DataError, which names ``where``, if it is malformed."""
    found = []
    for number, data in enumerate(decode(content, where), 1):
        try:
            found.append(structured(data, kind))
        except WrongValue as error:
            raise DataError(f"{where}:{number}: an outcome needs a text 'id' and a finite number 'score'") from error
    return found


def read_lines(path: Path) -> tuple[list[tuple[int, dict[str, object]]], list[str]]:
    """(line number, object) for every line of a JSONL file, and a warning where a torn last line was dropped.

    Raises DataError for any other line that is no JSON object.
    """
    objects: list[tuple[int, dict[str, object]]] = []
    for number, found, torn in _parsed(path):
        if torn:
            return objects, [TORN.format(path.name)]
        if isinstance(found, DataError):
            raise DataError(f"{found}; remove the line or run the trial again") from found
        objects.append((number, found))
    return objects, []


def _in_letters(record: Record) -> Record:
    """The record without characters in its texts that a terminal, a page or a picture would obey or cannot show."""
    letters = {printable(key): _of_letters(item) for key, item in record.as_read.items()}
    return record if letters == record.as_read else structured(letters, type(record))


def _of_letters(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _of_letters(item) for key, item in value.items()}
    return [_of_letters(item) for item in value] if isinstance(value, list) else value
