"""Reading what a run left behind: ``results.jsonl`` (a record per line, one per attempt) and ``outcomes/<id>.parquet``.

A run that was killed leaves at most a torn last line; it is dropped and said so. Anything else that does not fit is an
error that names the file and the line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headwise.errors import DataError
from headwise.printing import printable
from headwise_lab.outcomes import ENDING, count, decode

RECORDS = "results.jsonl"
OUTCOMES = "outcomes"

_SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]*")
_NEEDED: dict[str, type | tuple[type, ...]] = {
    "strategies": dict,
    "benchmark": str,
    "budget": dict,
    "heads": dict,
    "metric": dict,
    "n": int,
}
_OBJECTS = ("settings", "cost", "overlap", "attention", "metrics", "notes", "timing", "versions", "hardware")
_KV_NEEDED: dict[str, type | tuple[type, ...]] = {
    "strategies": dict,
    "text": dict,
    "metric": dict,
    "nll": dict,
    "n": int,
    "context": (int, float),
}
_KV_OBJECTS = ("accuracy", "versions", "hardware")


def read_records(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Records of an output folder and warnings about it; of records with the same id the last one counts.

    Raises DataError where ``results.jsonl`` is missing, holds no whole record, or has a malformed line.
    """
    path = Path(folder) / RECORDS
    numbered, warnings = read_lines(path)
    if not numbered:
        raise DataError(f"{path} holds no whole record; run `headwise run`, `ablate` or `demo` with --out {folder}")
    records: dict[str, dict[str, Any]] = {}
    for number, record in numbered:
        _check_record(record, f"{path}:{number}")
        records.pop(record["id"], None)
        records[record["id"]] = _of_letters(record)
    return list(records.values()), warnings


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


def read_outcomes(folder: Path, identity: str) -> list[dict[str, Any]]:
    """Per-question outcomes of the record ``identity``; raises DataError where they are missing or malformed."""
    path = outcomes_path(Path(folder), identity)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the output folder of a run") from error
    return outcomes_in(content, str(path))


def outcomes_in(content: bytes, where: str) -> list[dict[str, Any]]:
    """Per-question outcomes in the content of a file; raises DataError, which says ``where``, if it is malformed."""
    outcomes = decode(content, where)
    for number, outcome in enumerate(outcomes, 1):
        _check_outcome(outcome, f"{where}:{number}")
    return outcomes


def read_lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """(line number, object) for every line of a JSONL file, and a warning where a torn last line was dropped."""
    try:
        pieces = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give the output folder of a run") from error
    filled = [(number, piece) for number, piece in enumerate(pieces, 1) if piece.strip()]
    objects: list[tuple[int, dict[str, Any]]] = []
    for number, piece in filled:
        try:
            parsed = json.loads(piece)
        except ValueError as error:
            if number == len(pieces):  # only a line without its newline can be half-written
                return objects, [f"The last line of {path.name} is torn and was dropped; the run may be unfinished."]
            raise DataError(f"{path}:{number} is not JSON; remove the line or run the trial again") from error
        if not isinstance(parsed, dict):
            raise DataError(f"{path}:{number} is not a JSON object; remove the line or run the trial again")
        objects.append((number, parsed))
    return objects, []


def _check_record(record: dict[str, Any], where: str) -> None:
    identity = record.get("id")
    if not (isinstance(identity, str) and _SAFE_ID.fullmatch(identity)):
        raise DataError(f"{where}: a record needs an id of letters and digits, not {identity!r}")
    if record.get("study") == "needle":
        raise DataError(
            f"{where} is a record of `headwise needle`, which shows its own table and heat maps; give the output folder"
            " of run, ppl, ablate or demo"
        )
    if not has_result(record):
        return
    needed, objects = (_KV_NEEDED, _KV_OBJECTS) if is_kv(record) else (_NEEDED, _OBJECTS)
    for key, kind in needed.items():
        if not isinstance(record.get(key), kind) or isinstance(record.get(key), bool):
            raise DataError(f"{where}: record {identity} has no usable {key!r}: {record.get(key)!r}")
    for key in objects:
        if not isinstance(record.get(key, {}), dict | None):
            raise DataError(f"{where}: {key!r} of record {identity} is not an object: {record[key]!r}")
    if not all(isinstance(text, str) for text in record["strategies"].values()):
        raise DataError(f"{where}: the strategies of record {identity} are not all texts: {record['strategies']!r}")
    if not is_number(record["metric"].get("value")):
        raise DataError(f"{where}: metric.value of record {identity} is not a finite number: {record['metric']!r}")
    if is_kv(record) and not (is_number(record["context"]) and record["context"] > 0):
        raise DataError(f"{where}: the context of record {identity} is no number above 0: {record['context']!r}")


def _of_letters(value: Any) -> Any:
    """A value whose texts hold nothing that a terminal, a page or a picture obeys or cannot show."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _of_letters(item) for key, item in value.items()}
    return [_of_letters(item) for item in value] if isinstance(value, list) else value


def has_result(record: Mapping[str, Any]) -> bool:
    """Whether a trial was run to its end; else it failed (``error``) or could not be run (``refused``)."""
    return not (record.get("error") or record.get("refused"))


def compares_methods(record: Mapping[str, Any]) -> bool:
    """Whether a record belongs to a comparison of whole methods, which has a layout of its own in reports."""
    return record.get("study") == "methods"


def is_kv(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a text read under KV eviction; all others answer the questions of a benchmark."""
    return "benchmark" not in record and "text" in record


def _check_outcome(outcome: dict[str, Any], where: str) -> None:
    if not (isinstance(outcome.get("id"), str) and is_number(outcome.get("score"))):
        raise DataError(f"{where}: an outcome needs a text 'id' and a finite number 'score'")


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
