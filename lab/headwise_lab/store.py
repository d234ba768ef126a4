"""The output folder of a run, a study or the demo, written so that a kill loses one trial at most.

Outcomes go first, as a whole file; then the record, as one appended line. A trial counts as done when both are there.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.records import OUTCOMES, RECORDS, read_lines, read_outcomes
from headwise_lab.whole_files import put

MANIFEST = "headwise.json"
SCHEMA = 1


@attrs.frozen(eq=False)
class Store:
    """An output folder that is ours to add to; ``records`` are those it held when it was opened, by id."""

    folder: Path
    records: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path, kind: str) -> Store:
        """Open or create an output folder for results of one ``kind``.

        Raises DataError in one sentence for a folder that cannot be written, that holds something else, or that
        another kind of run or another version of headwise wrote.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _claim(folder, {"schema": SCHEMA, "kind": kind, "headwise": version("headwise")})
            (folder / OUTCOMES).mkdir(exist_ok=True)
            warnings = _repair(folder / RECORDS)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return cls(folder, _held(folder / RECORDS), warnings)

    def done(self, identity: str) -> bool:
        """Whether a trial's record is here and all its outcomes; a trial that failed has none."""
        record = self.records.get(identity)
        if record is None:
            return False
        try:
            return len(read_outcomes(self.folder, identity)) == record.get("n")
        except DataError:
            return False

    def add(self, record: Mapping[str, Any], outcomes: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write a finished trial; a reader sees all of it or nothing."""
        try:
            if outcomes:
                put(self.folder / OUTCOMES / f"{record['id']}.jsonl", "".join(map(_line, outcomes)).encode())
            _append(self.folder / RECORDS, _line(record))
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        except ValueError as error:  # NaN is no JSON, and no reader could compare it with anything
            raise DataError(f"record {record['id']} holds a figure that is no finite number: {error}") from error


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(f"{folder} cannot be written to ({error.strerror or error}); give --out a folder you may write to")


def _claim(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest into an empty folder, or check the one that is there."""
    path = folder / MANIFEST
    foreign = [item.name for item in folder.iterdir() if not item.name.startswith(f".{MANIFEST}.")]
    if not foreign:
        put(path, (json.dumps(dict(manifest), indent=1) + "\n").encode())
    elif not path.is_file():
        raise DataError(
            f"{folder} holds {sorted(foreign)[0]} and no {MANIFEST}, so it is not an output folder of headwise; give"
            " --out a new or empty folder"
        )
    else:
        _compare(folder, _read_manifest(path), manifest)
        with tempfile.TemporaryFile(
            dir=folder
        ):  # finds out now, not after the first trial, that nothing can be written
            pass


def _read_manifest(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path} is half-written or not ours; give --out a new or empty folder, or delete this one")
    return found


def _compare(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if {**wanted, **found} != dict(wanted):
        held, asked = (f"{told.get('kind')} of headwise {told.get('headwise')}" for told in (found, wanted))
        raise DataError(f"{folder} belongs to {held}, not to {asked}; give --out a folder of its own")


def _repair(path: Path) -> tuple[str, ...]:
    """Make ``results.jsonl`` end with a whole line again; says so where a torn one was dropped."""
    if not path.exists():
        return ()
    content = path.read_bytes()
    whole, newline, rest = content.rpartition(b"\n")
    if not rest:
        return ()
    try:
        json.loads(rest)
    except ValueError:
        with path.open("r+b") as stream:
            stream.truncate(len(whole) + len(newline))
        return (f"the last line of {path} was torn and has been dropped; its trial is run again",)
    with path.open("ab") as stream:
        stream.write(b"\n")
    return ()


def _held(path: Path) -> dict[str, Mapping[str, Any]]:
    """Records by id, the last of each; raises DataError where a line is malformed."""
    if not path.exists():
        return {}
    return {str(record.get("id")): record for _, record in read_lines(path)[0]}


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, allow_nan=False) + "\n"


def _append(path: Path, line: str) -> None:
    """Add one line by one write, and have it on disk before returning."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
