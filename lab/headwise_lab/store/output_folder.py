"""The output folder of a run, a study or the demo, written so that a kill loses one trial at most.

Outcomes go first, as a whole file; then the record, as one appended line. A trial counts as done when both are there.
Behind a URL a record is an object of its own (see ``objects``); there are no locks there, so two writers may run the
same trial, which gives two records with one id and the same outcomes. In both, the last record of an id counts.
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
from headwise_lab.store.record_schema import as_far_as_it_goes, judge_written
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import Row
from headwise_lab.store.unfinished import forget

__all__ = ["MANIFEST", "Store", "kind_of"]

R = TypeVar("R", bound=Record)

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}


class _Kept(Protocol):
    """How records and outcomes are kept: ``files`` on this machine, ``objects`` behind a URL."""

    def check(self, text: bytes) -> None: ...
    def claim(self, text: bytes) -> tuple[str, ...]: ...
    def records(self) -> tuple[list[dict[str, object]], tuple[str, ...]]: ...
    def add(self, line: bytes) -> None: ...
    def put_outcomes(self, identity: str, content: bytes) -> None: ...
    def outcomes(self, identity: str, kind: type[Row]) -> list[Row]: ...
    def count(self, identity: str) -> int | None: ...


@attrs.frozen(eq=False)
class Store:
    """An output folder that is ours to add to.

    ``records`` are by id the last ones of the folder when it was opened or refreshed, and those added since. One thread
    at a time may use a store; any number of processes may have the folder open.
    """

    folder: Path
    _kept: _Kept
    records: dict[str, Record] = attrs.field(factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path, kind: str) -> Store:
        """Open or create an output folder for results of one ``kind``; ``warnings`` say what was repaired.

        Raises DataError in one sentence for a folder that cannot be written, that holds something else, or that
        another kind of run or another version of headwise wrote.
        """
        kept = _kept(folder)
        with _told(folder):
            repaired = kept.claim(manifest(kind))
            records, warnings = kept.records()
        store = cls(folder, kept, _last(records))
        return attrs.evolve(store, warnings=(*repaired, *warnings, *store._incomplete()))

    @staticmethod
    def check(folder: Path, kind: str) -> None:
        """Raise DataError where a local folder is not one to write results of this ``kind`` to; changes nothing."""
        kept = _kept(folder)
        with _told(folder):
            kept.check(manifest(kind))

    @classmethod
    def look(cls, folder: Path) -> Store:
        """The records of a folder as it is, without changing anything in it; none where it is not there."""
        kept = _kept(folder)
        records, warnings = kept.records()
        return cls(folder, kept, _last(records), warnings)

    def refresh(self) -> None:
        """Take note of what others have added since."""
        records, _ = self._kept.records()
        self.records.clear()
        self.records.update(_last(records))

    def done(self, identity: str) -> bool:
        """Whether a trial's record is here and all its outcomes; a trial that failed has none."""
        record = self.records.get(identity)
        if record is None or not record.has_result or record.n is None:
            return False
        return self._kept.count(identity) == record.n

    def finished(self, identity: str, kind: type[R]) -> R | None:
        """A trial's record where it is done and of this kind."""
        record = self.records.get(identity)
        return record if isinstance(record, kind) and self.done(identity) else None

    def add(self, record: Record, outcomes: Sequence[Outcome] = ()) -> None:
        """Write an attempt of a trial; a reader sees all of it or nothing.

        When this returns it is on disk, or stored behind the URL. Raises DataError in one sentence where it cannot be
        written, as on a full disk; what was there before stays as it was.
        """
        told = record.to_json()
        judge_written(told)
        try:
            line = (json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n").encode()
            content = encode([outcome.to_json() for outcome in outcomes]) if outcomes else None
        except ValueError as error:  # NaN is no JSON, and no reader could compare it with anything
            raise DataError(f"record {record.id} holds a figure that is no finite number: {error}") from error
        with _told(self.folder):
            if content is not None:
                self._kept.put_outcomes(record.id, content)
            self._kept.add(line)
        if record.has_result:
            forget(self.folder, record.id)
        self.records.pop(record.id, None)
        self.records[record.id] = record

    def outcomes(self, identity: str, kind: type[Row]) -> list[Row]:
        """A trial's outcomes; raises DataError where they are missing or malformed."""
        return self._kept.outcomes(identity, kind)

    def _incomplete(self) -> list[str]:
        """A warning where outcomes of finished trials are missing or torn, so that they will be run again."""
        lost = [
            name
            for name, record in self.records.items()
            if record.has_result and record.n and record.source is None and not self.done(name)
        ]
        named = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        what = "1 trial, which is" if len(lost) == 1 else f"{len(lost)} trials, which are"
        return [f"{self.folder} lacks outcomes of {what} run again: {named}"] if lost else []


def kind_of(folder: Path) -> str | None:
    """The kind of run that a folder belongs to; None where it belongs to none."""
    if not is_local(folder):
        return kind_in(load(folder, [MANIFEST]).get(MANIFEST, b""))
    try:
        return kind_in((folder / MANIFEST).read_bytes())
    except OSError:
        return None


def _kept(folder: Path) -> _Kept:
    if is_local(folder):
        from headwise_lab.store.local_store import Files

        return Files(folder)
    from headwise_lab.store.object_store import Objects

    return Objects(folder)


def _last(lines: Sequence[Json]) -> dict[str, Record]:
    """Records by id, the last of each; a line whose id could name no file is nobody's."""
    found: dict[str, Record] = {}
    for told in lines:
        record = as_far_as_it_goes(told)
        if record is not None:
            found.pop(record.id, None)
            found[record.id] = record
    return found


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """An OSError inside is a DataError of one sentence."""
    try:
        yield
    except OSError as error:
        do = "make room and run the same line again" if error.errno in _FULL else "give --out a folder you may write to"
        raise DataError(f"{folder} cannot be written to ({error.strerror or error}); {do}") from error
