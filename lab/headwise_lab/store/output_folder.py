"""The output folder of a run, a study or the demo. If its process is killed, at most one finished trial is lost.

The outcomes are written first, as a whole file, then the record, as one appended line. A trial counts as done when both
are there. Behind a URL every record is an object of its own (see ``object_store``). There are no locks there, so two
writers may run the same trial, which gives two records with the same id and the same outcomes. Of several records with
the same id the last counts.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import attrs

from headwise.errors import DataError
from headwise_lab.schema.json_object import Json
from headwise_lab.store.locations import is_local, load
from headwise_lab.store.manifest import MANIFEST, kind_in, manifest
from headwise_lab.store.outcome_types import Outcome
from headwise_lab.store.outcomes import encode
from headwise_lab.store.record_schema import as_far_as_it_goes, judge_written, last_of_each
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import Row
from headwise_lab.store.unfinished import forget

__all__ = ["MANIFEST", "Store", "kind_of"]

R = TypeVar("R", bound=Record)

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}


class _Backend(Protocol):
    """Reads and writes records and outcomes: a ``LocalStore`` on this machine, an ``ObjectStore`` behind a URL."""

    def check(self, text: bytes) -> None: ...
    def claim(self, text: bytes) -> tuple[str, ...]: ...
    def records(self) -> tuple[list[dict[str, object]], tuple[str, ...]]: ...
    def add(self, line: bytes) -> None: ...
    def put_outcomes(self, identity: str, content: bytes) -> None: ...
    def outcomes(self, identity: str, kind: type[Row]) -> list[Row]: ...
    def count(self, identity: str) -> int | None: ...


@attrs.frozen(eq=False)
class Store:
    """An output folder of headwise, to which records can be added.

    ``records``: id -> the last record with it, as the folder was when it was opened or refreshed, and those added here
    since. Only one thread may use a store; any number of processes may have the folder open.
    """

    folder: Path
    _backend: _Backend
    records: dict[str, Record] = attrs.field(factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path, kind: str) -> Store:
        """Open or create an output folder for results of one ``kind``; ``warnings`` say what was repaired.

        Raises DataError in one sentence for a folder that cannot be written to, that holds other files, or that
        another kind of run or another version of headwise wrote.
        """
        backend = _backend_of(folder)
        with _write_errors(folder):
            repaired = backend.claim(manifest(kind))
            records, warnings = backend.records()
        store = cls(folder, backend, _last(records))
        return attrs.evolve(store, warnings=(*repaired, *warnings, *store._incomplete()))

    @staticmethod
    def check(folder: Path, kind: str) -> None:
        """Raise DataError where results of this ``kind`` cannot be written to a local folder; changes nothing."""
        with _write_errors(folder):
            _backend_of(folder).check(manifest(kind))

    @classmethod
    def look(cls, folder: Path) -> Store:
        """Read the records of a folder without changing it; none where it does not exist."""
        backend = _backend_of(folder)
        records, warnings = backend.records()
        return cls(folder, backend, _last(records), warnings)

    def refresh(self) -> None:
        """Read again, with the records that other processes have added since."""
        records, _ = self._backend.records()
        self.records.clear()
        self.records.update(_last(records))

    def done(self, identity: str) -> bool:
        """Whether a trial's record has a result, and all its outcomes are stored."""
        record = self.records.get(identity)
        if record is None or not record.has_result or record.n is None:
            return False
        return self._backend.count(identity) == record.n

    def finished(self, identity: str, kind: type[R]) -> R | None:
        """A trial's record, where the trial is done and the record is of this class; else None."""
        record = self.records.get(identity)
        return record if isinstance(record, kind) and self.done(identity) else None

    def add(self, record: Record, outcomes: Sequence[Outcome] = ()) -> None:
        """Write an attempt at a trial; a reader finds all of it or nothing.

        When this returns it is on disk, or stored behind the URL. Raises DataError in one sentence where it cannot be
        written, as on a full disk; earlier records and outcomes stay unchanged.
        """
        content_of_record = record.to_json()
        judge_written(content_of_record)
        try:
            line = (json.dumps(content_of_record, ensure_ascii=False, allow_nan=False) + "\n").encode()
            content = encode([outcome.to_json() for outcome in outcomes]) if outcomes else None
        except ValueError as error:  # NaN is not JSON, and cannot be compared with anything
            raise DataError(f"record {record.id} holds a figure that is no finite number: {error}") from error
        with _write_errors(self.folder):
            if content is not None:
                self._backend.put_outcomes(record.id, content)
            self._backend.add(line)
        if record.has_result:
            forget(self.folder, record.id)
        self.records.pop(record.id, None)
        self.records[record.id] = record

    def outcomes(self, identity: str, kind: type[Row]) -> list[Row]:
        """A trial's outcomes; raises DataError where they are missing or malformed."""
        return self._backend.outcomes(identity, kind)

    def _incomplete(self) -> list[str]:
        """A warning where outcomes of finished trials are missing or torn; these trials will be run again."""
        lost = [
            name
            for name, record in self.records.items()
            if record.has_result and record.n and record.source is None and not self.done(name)
        ]
        named = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        what = "1 trial, which is" if len(lost) == 1 else f"{len(lost)} trials, which are"
        return [f"{self.folder} lacks outcomes of {what} run again: {named}"] if lost else []


def kind_of(folder: Path) -> str | None:
    """The kind of run that wrote a folder; None where it has no manifest of headwise."""
    if not is_local(folder):
        return kind_in(load(folder, [MANIFEST]).get(MANIFEST, b""))
    try:
        return kind_in((folder / MANIFEST).read_bytes())
    except OSError:
        return None


def _backend_of(folder: Path) -> _Backend:
    if is_local(folder):
        from headwise_lab.store.local_store import LocalStore

        return LocalStore(folder)
    from headwise_lab.store.object_store import ObjectStore

    return ObjectStore(folder)


def _last(lines: Sequence[Json]) -> dict[str, Record]:
    """Id -> the last record with it; lines whose id could not name a file are left out."""
    return last_of_each(record for line in lines if (record := as_far_as_it_goes(line)) is not None)


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Turns an OSError inside into a DataError of one sentence."""
    try:
        yield
    except OSError as error:
        do = "make room and run the same line again" if error.errno in _FULL else "give --out a folder you may write to"
        raise DataError(f"{folder} cannot be written to ({error.strerror or error}); {do}") from error
