"""Reading what a run left behind: ``results.jsonl`` (a record per line, one per attempt) and ``outcomes/<id>.parquet``.

A run that was killed leaves at most a torn last line; it is dropped and said so. Anything else that does not fit is an
error that names the file and the line.
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
from headwise_lab.store.record_schema import judged
from headwise_lab.store.record_types import Record

__all__ = [
    "OUTCOMES", "RECORDS", "attempts_in", "has_outcomes", "is_number", "outcomes_in",
    "outcomes_path", "read_lines", "read_outcomes", "read_records", "whole_lines",
]  # fmt: skip

Row = TypeVar("Row", bound=Outcome)

RECORDS = "results.jsonl"
OUTCOMES = "outcomes"
LONGEST_LINE, DEEPEST = 2**24, 50  # bytes; lists and objects within each other
TORN = "The last line of {} is torn and was dropped; the run may be unfinished."


def read_records(folder: Path) -> tuple[list[Record], list[str]]:
    """Records of an output folder and warnings about it; of records with the same id the last one counts.

    A record that is malformed is left out, and a warning names it. Raises DataError where ``results.jsonl`` is missing
    or holds no record that can be used.
    """
    path = Path(folder) / RECORDS
    numbered, warnings = whole_lines(path)
    records: dict[str, Record] = {}
    for number, told in numbered:
        try:
            record = _in_letters(judged(told, f"{path}:{number}"))
        except DataError as error:
            warnings.append(f"{error}; it was left out.")
            continue
        records.pop(record.id, None)
        records[record.id] = record
    if not records:
        why = f" ({warnings[0].rstrip('.')})" if warnings else ""
        raise DataError(
            f"{path} holds no whole record{why}; run `headwise run`, `ablate` or `demo` with --out {folder}"
        )
    return list(records.values()), warnings


def whole_lines(path: Path) -> tuple[list[tuple[int, dict[str, object]]], list[str]]:
    """(line number, object) of the lines of a JSONL file that are whole, and warnings about the others.

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
    """Of every line that is not blank its number, its object or what is wrong, and whether it may be half-written.

    Only a line without its newline can be: the last.
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
    """The JSON object in a line; raises DataError where it is none."""
    if len(piece) > LONGEST_LINE:
        raise DataError(f"{path}:{number} is longer than a record: {len(piece)} bytes")
    parsed = json_within(piece, f"{path}:{number}", deepest=DEEPEST, torn=True)
    if not isinstance(parsed, dict):
        raise DataError(f"{path}:{number} is not a JSON object")
    return parsed


def attempts_in(folder: Path) -> dict[str, int]:
    """Record -> lines it has in ``results.jsonl``, one per attempt; nothing where that cannot be read."""
    try:
        lines, _ = read_lines(folder / RECORDS)
    except DataError:
        return {}
    return dict(Counter(str(told.get("id")) for _, told in lines))


def outcomes_path(folder: Path, identity: str) -> Path:
    """The file with the outcomes of the record ``identity``."""
    return folder / OUTCOMES / f"{identity}{ENDING}"


def has_outcomes(folder: Path, identity: str) -> bool:
    """Whether the outcomes of a record are there and their file is whole."""
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
    """Outcomes of the record ``identity``, a question's each; raises DataError where they are missing or malformed."""
    path = outcomes_path(Path(folder), identity)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the output folder of a run") from error
    return outcomes_in(content, str(path), kind)


def outcomes_in(content: bytes, where: str, kind: type[Row]) -> list[Row]:
    """Outcomes in the content of a file; raises DataError, which says ``where``, if it is malformed."""
    found = []
    for number, told in enumerate(decode(content, where), 1):
        try:
            found.append(structured(told, kind))
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
    """A record whose texts hold nothing that a terminal, a page or a picture obeys or cannot show."""
    letters = {printable(key): _of_letters(item) for key, item in record.as_read.items()}
    return record if letters == record.as_read else structured(letters, type(record))


def _of_letters(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _of_letters(item) for key, item in value.items()}
    return [_of_letters(item) for item in value] if isinstance(value, list) else value
