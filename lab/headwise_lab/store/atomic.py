"""Files that appear whole or not at all."""

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
"""Names of files that are only being written: such as nobody else gives, because what is left of them is removed."""

ABANDONED = 3600.0
"""Seconds after which nobody is still writing a hidden file; the clocks of two machines may differ by minutes."""


def put(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file under another name, then move it into place; raises OSError and leaves nothing where that fails.

    ``durable``: it is on disk when this returns, also if the machine stops.
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
    """Make one of the folders that results are written to; raises DataError where a link leads out of it."""
    refuse_link(folder)
    folder.mkdir(exist_ok=True)


def refuse_link(path: Path) -> None:
    """Raise DataError where a file or folder that is to be written to is a link: nobody has named what it leads to."""
    if path.is_symlink():
        raise DataError(f"{path} is a link to {path.readlink()}, which --out does not name; remove it, or give another")


def remove_abandoned(folder: Path) -> None:
    """Remove what a ``put`` that was killed left in a folder long ago; what may still be written stays."""
    for path in filter(is_part, folder.iterdir()):
        with suppress(OSError):  # moved into place meanwhile, or somebody else's
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > ABANDONED:
                path.unlink()


def is_part(path: Path) -> bool:
    """Whether a file is named as those are that a ``put`` has not finished."""
    return _OURS.fullmatch(path.name) is not None


def free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise DataError where one of the files is there already and may not be written over, or is a folder."""
    for path in paths:
        if path.is_dir():
            raise DataError(f"{path} is a folder; give --out the name of a file")
        if path.exists() and not overwrite:
            raise DataError(f"{path} is there already; give --out another name, or --overwrite to replace it")


@contextmanager
def whole(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Hidden places to write files of one folder to; they move to ``paths`` at the end, and vanish if anything fails.

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
