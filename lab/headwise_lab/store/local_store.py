"""An output folder of this machine: records are appended to one file, and each trial's outcomes are a file.

Any number of processes may write at the same time, also on several machines that share the filesystem: each holds the
lock of a separate file while it appends to ``results.jsonl`` or repairs its end. On a filesystem without locks, only
one process may write.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.store.atomic import put, refuse_link, remove_abandoned
from headwise_lab.store.jsonl import append, mend
from headwise_lab.store.lock import held
from headwise_lab.store.manifest import MANIFEST, compare, half_written, mended, refuse_foreign
from headwise_lab.store.outcomes import count
from headwise_lab.store.records import OUTCOMES, RECORDS, Row, outcomes_path, read_lines, read_outcomes
from headwise_lab.store.unfinished import FOLDER as ANSWERS

LOCK = f".{MANIFEST}.append"
_WRITTEN = (MANIFEST, RECORDS, OUTCOMES, ANSWERS)


class LocalStore:
    """The records and outcomes of a local folder. Methods that write raise OSError where that fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, text: bytes) -> tuple[str, ...]:
        """Create the output folder, or check that it is one of headwise, and repair it; returns warnings of repairs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.check(text)
        with held(self._folder / LOCK):
            warnings = self._manifest(text)
            (self._folder / OUTCOMES).mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder / OUTCOMES):  # raises now, before any trial is run
                pass
            for folder in (self._folder, self._folder / OUTCOMES):
                remove_abandoned(folder)
            path = self._folder / RECORDS
            if mend(path):
                warnings.append(f"the last line of {path} was torn and has been dropped; its trial is run again")
        return tuple(warnings)

    def check(self, text: bytes) -> None:
        """Raise DataError where the folder exists and is not ours, or a link leads out of it; changes nothing."""
        if not self._folder.exists():
            return
        path, names = self._folder / MANIFEST, [one.name for one in self._folder.iterdir()]
        for name in names:
            if name in _WRITTEN or name.startswith(f".{MANIFEST}."):  # the latter are locks
                refuse_link(self._folder / name)
        refuse_foreign(self._folder, names, path.exists)
        if path.exists() and not half_written(found := path.read_bytes(), text):
            compare(self._folder, found, text)

    def _manifest(self, text: bytes) -> list[str]:
        path = self._folder / MANIFEST
        found = path.read_bytes() if path.exists() else None
        if found is not None and not half_written(found, text):
            compare(self._folder, found, text)
            return []
        put(path, text)
        return [] if found is None else [mended(self._folder)]

    def records(self) -> tuple[list[dict[str, object]], tuple[str, ...]]:
        """All records in order, and a warning where the last line is torn; raises DataError where another line is."""
        path = self._folder / RECORDS
        with held(self._folder / LOCK, alone=False):  # waits for a line that is being written
            lines, warnings = read_lines(path) if path.exists() else ([], [])
        return [record for _, record in lines], tuple(warnings)

    def add(self, line: bytes) -> None:
        """Append a record; it is on disk when this returns."""
        with held(self._folder / LOCK):
            append(self._folder / RECORDS, line)

    def put_outcomes(self, identity: str, content: bytes) -> None:
        """Write a trial's outcomes as a whole file."""
        put(outcomes_path(self._folder, identity), content)

    def outcomes(self, identity: str, kind: type[Row]) -> list[Row]:
        """A trial's outcomes; raises DataError where they are missing or torn."""
        return read_outcomes(self._folder, identity, kind)

    def count(self, identity: str) -> int | None:
        """The number of a trial's outcomes; None where they are missing or torn."""
        path = outcomes_path(self._folder, identity)
        try:
            return count(path, str(path))
        except DataError:
            return None
