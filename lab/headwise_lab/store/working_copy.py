"""A local copy of an output folder behind a URL; files that were changed in it are sent back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from headwise.errors import DataError, HeadwiseError
from headwise_lab.store.locations import OBJECTS, files_in, filesystem, is_local, reached, send
from headwise_lab.store.object_store import ObjectStore
from headwise_lab.store.records import RECORDS


@contextmanager
def at_hand(folder: Path, *, writes: bool = False) -> Iterator[Path]:
    """An output folder as local files: the folder itself, or a temporary copy of what is behind a URL.

    The copy has the layout of a local folder. ``writes``: at the end, unless an exception was raised, new and changed
    files are sent to the URL; but not records, which only a ``Store`` adds. Raises DataError where the URL cannot be
    read, has no files, or cannot be written to. The message of a HeadwiseError raised inside names the URL instead of
    the copy.
    """
    if is_local(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="headwise-") as name:
        local = Path(name) / (folder.name or "folder")
        before = _fetch(folder, local)
        try:
            yield local
        except HeadwiseError as error:
            raise type(error)(str(error).replace(str(local), str(folder))) from error
        if writes:
            _put_back(folder, local, before)


FileStates = dict[str, tuple[int, int]]
"""Relative name -> (size, time of change)."""


def _fetch(folder: Path, local: Path) -> FileStates:
    """Copy the files behind a URL, with all record objects in one ``results.jsonl``; returns the copy's state."""
    names = [name for name in files_in(folder) if PurePosixPath(name).parts[0] != OBJECTS]
    lines, _ = ObjectStore(folder).lines()
    if not names and not lines:
        raise DataError(f"{folder} holds nothing; give the output folder of a run")
    for parent in {(local / name).parent for name in names} | {local}:
        parent.mkdir(parents=True, exist_ok=True)
    with reached(folder, "read"):
        fs, root = filesystem(folder)
        fs.get([f"{root}/{name}" for name in names], [str(local / name) for name in names])
    if lines:
        (local / RECORDS).write_bytes(b"".join(lines))
    return _states(local)


def _put_back(folder: Path, local: Path, before: FileStates) -> None:
    names = [name for name, state in _states(local).items() if before.get(name) != state and name != RECORDS]
    send(folder, {name: (local / name).read_bytes() for name in names})


def _states(local: Path) -> FileStates:
    """The states of all files of a folder."""
    files = [path for path in local.rglob("*") if path.is_file()]
    stats = {path.relative_to(local).as_posix(): path.stat() for path in files}
    return {name: (found.st_size, found.st_mtime_ns) for name, found in stats.items()}
