"""An output folder behind a URL: an object for each record and each trial's outcomes, each written by one request.

Nothing is appended or locked there, so any number of machines may write at the same time. The name of a record object
begins with the time (UTC), so that names sort by time: of records with the same id the last counts. A writer whose
clock is slow gives its record a time just after the latest that it has read, so that a later attempt sorts later.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headwise.errors import DataError
from headwise_lab.store.locations import OBJECTS, files_in, filesystem, load, reached, send
from headwise_lab.store.manifest import MANIFEST, compare, half_written, mended, refuse_foreign
from headwise_lab.store.outcomes import ENDING, count
from headwise_lab.store.records import OUTCOMES, Row, outcomes_in

_STAMP = "%Y%m%dT%H%M%S%fZ"
_TAIL = 1 << 16  # bytes; more than the footer of a Parquet file, which holds the number of rows


class ObjectStore:
    """The records and outcomes behind a URL; a record object is read only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, bytes] = {}  # name of an object -> its record
        self._latest = datetime.min.replace(tzinfo=UTC)
        self._counts: dict[str, int] | None = None

    def check(self, text: bytes) -> None:
        """Does nothing: ``claim`` checks what is behind the URL before it writes."""

    def claim(self, text: bytes) -> tuple[str, ...]:
        """Write the manifest into an empty folder, or check the one there; returns warnings of what was repaired."""
        top = {name.partition("/")[0] for name in files_in(self._folder)}
        found = self._manifest()
        refuse_foreign(self._folder, top, lambda: found is not None)
        if found is None or half_written(found, text):
            send(self._folder, {MANIFEST: text})
        compare(self._folder, self._manifest() or b"", text)  # another process may have written its own meanwhile
        return (mended(self._folder),) if found is not None and half_written(found, text) else ()

    def _manifest(self) -> bytes | None:
        return load(self._folder, [MANIFEST]).get(MANIFEST)

    def records(self) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        """All records in order, and warnings about those that are not whole, which are left out."""
        self._counts = None
        lines, warnings = self.lines()
        return [json.loads(line) for line in lines], warnings

    def lines(self) -> tuple[list[bytes], tuple[str, ...]]:
        """The same as ``records`` returns, but each record as a line of JSON."""
        names = [name for name in files_in(self._folder, OBJECTS) if name.endswith(".json")]
        self._read |= load(self._folder, [name for name in names if name not in self._read])
        self._latest = max([self._latest, *map(_time, names)])
        torn = [name for name in names if not _is_object(self._read.get(name, b""))]
        for name in torn:
            self._read.pop(name, None)
        warnings = tuple(f"{self._folder}/{name} is half-written and was left out" for name in torn)
        return [self._read[name].strip() + b"\n" for name in sorted(set(names) - set(torn))], warnings

    def add(self, line: bytes) -> None:
        """Write a record as an object of its own; raises DataError where that fails."""
        self._latest = max(datetime.now(UTC), self._latest + timedelta(microseconds=1))
        name = f"{OBJECTS}/{self._latest.strftime(_STAMP)}-{secrets.token_hex(6)}.json"
        send(self._folder, {name: line})
        self._read[name] = line

    def put_outcomes(self, identity: str, content: bytes) -> None:
        """Write a trial's outcomes."""
        send(self._folder, {_outcomes_of(identity): content})
        if self._counts is not None:
            self._counts[identity] = count(content, identity)

    def outcomes(self, identity: str, kind: type[Row]) -> list[Row]:
        """A trial's outcomes; raises DataError where they are missing or torn."""
        name = _outcomes_of(identity)
        return outcomes_in(load(self._folder, [name]).get(name, b""), f"{self._folder}/{name}", kind)

    def count(self, identity: str) -> int | None:
        """The number of a trial's outcomes; None where they are missing or torn."""
        if self._counts is None:
            self._counts = self._count_all()
        return self._counts.get(identity)

    def _count_all(self) -> dict[str, int]:
        """Identity -> number of outcomes, for all trials whose file is whole."""
        sizes = files_in(self._folder, OUTCOMES)
        found = {}
        for name, tail in self._tails(sizes).items():
            try:
                identity = name.removeprefix(f"{OUTCOMES}/").removesuffix(ENDING)
                found[identity] = _count(tail, sizes[name], f"{self._folder}/{name}")
            except DataError:  # a torn file counts as missing
                continue
        return found

    def _tails(self, sizes: Mapping[str, int]) -> dict[str, Any]:
        """Name -> the last bytes of each file, requested together; an exception for a file that cannot be read."""
        if not sizes:
            return {}
        with reached(self._folder, "read"):
            fs, root = filesystem(self._folder)
            paths = [f"{root}/{name}" for name in sizes]
            begins = [max(0, size - _TAIL) for size in sizes.values()]
            return dict(zip(sizes, fs.cat_ranges(paths, begins, list(sizes.values())), strict=True))


def _outcomes_of(identity: str) -> str:
    return f"{OUTCOMES}/{identity}{ENDING}"


def _time(name: str) -> datetime:
    """The time in an object's name; the earliest possible time where it has none."""
    try:
        return datetime.strptime(name.rpartition("/")[2].partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _count(tail: bytes | Exception, size: int, where: str) -> int:
    """The number of rows from a file's last bytes; zeros stand for the bytes before them, so that offsets fit."""
    if isinstance(tail, Exception):
        raise DataError(f"{where} cannot be read") from tail
    return count(bytes(size - len(tail)) + tail, where)
