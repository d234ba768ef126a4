"""Writing files so that a reader finds all of a file or nothing."""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from headwise.errors import DataError

_OURS = re.compile(r"\.headwise-[0-9a-f]{32}\.part")
"""Names of unfinished files. No other program uses such names, because headwise removes old files that have them."""

ABANDONED = 3600.0
"""Seconds after which an unfinished file counts as left behind; the clocks of two machines may differ by minutes."""


def put(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file under another name, then move it into place. Raises OSError where that fails, and leaves no file.

    ``durable``: when this returns, the file survives a crash of the machine.
    """
    name = path.parent / f".headwise-{secrets.token_hex(16)}.part"
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.chmod(name, 0o644)  # results are meant to be shared
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder for results, unless it exists; raises DataError where it is a symbolic link."""
    refuse_link(folder)
    folder.mkdir(exist_ok=True)


def refuse_link(path: Path) -> None:
    """Raise DataError where a path to write to is a symbolic link: the user did not name the place it leads to."""
    if path.is_symlink():
        raise DataError(f"{path} is a link to {path.readlink()}, which --out does not name; remove it, or give another")


def remove_abandoned(folder: Path) -> None:
    """Remove unfinished files of a killed ``put``; those younger than ABANDONED stay, because they may be in use."""
    for path in filter(is_part, folder.iterdir()):
        with suppress(OSError):  # it was moved into place meanwhile, or belongs to another user
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > ABANDONED:
                path.unlink()


def is_part(path: Path) -> bool:
    """Whether a file has the name of one that ``put`` has not finished."""
    return _OURS.fullmatch(path.name) is not None


def free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise DataError where one of the paths is a folder, or is a file and ``overwrite`` is false."""
    for path in paths:
        if path.is_dir():
            raise DataError(f"{path} is a folder; give --out the name of a file")
        if path.exists() and not overwrite:
            raise DataError(f"{path} is there already; give --out another name, or --overwrite to replace it")


@contextmanager
def whole(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Temporary paths for files of one folder. At the end the files move to ``paths``; after an error they are removed.

    Raises DataError in one sentence where the folder cannot be written to, or the disk is full.
    """
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".headwise-") as hidden:
            written = [Path(hidden) / path.name for path in paths]
            yield written
            for source, path in zip(written, paths, strict=True):
                os.replace(source, path)
    except OSError as error:
        raise DataError(
            f"{paths[0]} cannot be written ({error.strerror or error}); give --out another place"
        ) from error
