"""A copy of an output folder behind a URL to work on, which goes back where it was changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from headwise.errors import DataError, HeadwiseError
from headwise_lab.store.locations import OBJECTS, files_in, filesystem, is_local, reached, send
from headwise_lab.store.object_store import Objects
from headwise_lab.store.records import RECORDS


@contextmanager
def at_hand(folder: Path, *, writes: bool = False) -> Iterator[Path]:
    """An output folder as local files: itself, or a temporary copy of what lies behind a URL, in the local layout.

    ``writes``: files that are new or changed inside go back to the URL at the end, unless something was raised; records
    do not, which only a ``Store`` adds. Raises DataError where the URL cannot be read, holds nothing, or cannot be
    written to; messages of HeadwiseErrors raised inside name the URL instead of the copy.
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


Seen = dict[str, tuple[int, int]]


def _fetch(folder: Path, local: Path) -> Seen:
    """Copy a URL's files, its record objects as ``results.jsonl``; returns what the copy holds."""
    names = [name for name in files_in(folder) if PurePosixPath(name).parts[0] != OBJECTS]
    lines, _ = Objects(folder).lines()
    if not names and not lines:
        raise DataError(f"{folder} holds nothing; give the output folder of a run")
    for parent in {(local / name).parent for name in names} | {local}:
        parent.mkdir(parents=True, exist_ok=True)
    with reached(folder, "read"):
        fs, root = filesystem(folder)
        fs.get([f"{root}/{name}" for name in names], [str(local / name) for name in names])
    if lines:
        (local / RECORDS).write_bytes(b"".join(lines))
    return _seen(local)


def _put_back(folder: Path, local: Path, before: Seen) -> None:
    names = [name for name, stamp in _seen(local).items() if before.get(name) != stamp and name != RECORDS]
    send(folder, {name: (local / name).read_bytes() for name in names})


def _seen(local: Path) -> Seen:
    """Relative name -> (size, time of change) of all files of a folder."""
    files = [path for path in local.rglob("*") if path.is_file()]
    return {path.relative_to(local).as_posix(): _stamp(path) for path in files}


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
