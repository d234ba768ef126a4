"""Where output folders lie: on this machine, or behind any URL that fsspec knows, such as an object store.

Programs that only read take a copy of what lies behind a URL (``at_hand``) and then work on ordinary local files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from headwise.errors import DataError, HeadwiseError
from headwise.reading import local_path
from headwise_lab.store.records import RECORDS

OBJECTS = "records"
"""Folder behind a URL with one object per record, where a local folder has ``results.jsonl``."""

BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos"})
"""Schemes of stores whose folders are nothing but common beginnings of names; making one could make a bucket."""


def place(given: str | Path) -> Path:
    """The folder a user named: a local path, or a ``UPath`` where it is a URL; ``file://`` URLs are local paths.

    Raises DataError in one sentence for a name that no folder can have, and for a scheme that fsspec does not know, or
    whose package is not installed.
    """
    if not isinstance(given, str):
        return local_path(given) if isinstance(given, Path) else given
    scheme, separator, _ = given.partition("://")
    if not separator:
        return local_path(given)
    if scheme in ("file", "local"):
        return _local(given)
    _installed(scheme, given)
    from upath import UPath

    return cast(Path, UPath(given.rstrip("/")))


def is_local(folder: Path) -> bool:
    """Whether a folder lies in a filesystem of this machine, with locks and appending."""
    return isinstance(folder, Path)


def _local(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise DataError(f"{url} names the machine {parts.netloc}; give file:///absolute/path, or the path alone")
    return local_path(url2pathname(parts.path))


def _installed(scheme: str, url: str) -> None:
    """Raise DataError where nothing here can reach URLs of a scheme; reaches for no network."""
    from fsspec import available_protocols, get_filesystem_class

    if scheme not in available_protocols():
        raise DataError(f"{url} begins with {scheme}://, which fsspec does not know; give a folder or an s3:// URL")
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        what = 'pip install "headwise[s3]"' if scheme in ("s3", "s3a") else _first_line(error)
        raise DataError(f"{url} needs a package that is not installed: {what}") from error


@contextmanager
def reached(folder: Path, doing: str) -> Iterator[None]:
    """Whatever goes wrong inside, with the network or with rights, is a DataError of one sentence.

    ``doing``: "read", "written to", ...
    """
    try:
        yield
    except HeadwiseError:
        raise
    except Exception as error:  # every filesystem has its own errors
        hint = "check that it is there, that you may, and that the network is up; what is stored there stays"
        raise DataError(f"{folder} cannot be {doing} ({_first_line(error)}); {hint}") from error


def _first_line(error: Exception) -> str:
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(told).strip().partition("\n")[0].rstrip(".")


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
    from headwise_lab.store.object_store import Objects

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


def filesystem(folder: Path) -> tuple[Any, str]:
    """The fsspec filesystem of a URL and the folder's name in it, without the ``/`` at its end."""
    remote = cast(Any, folder)
    return remote.fs, str(remote.path).rstrip("/")


def files_in(folder: Path, under: str = "") -> dict[str, int]:
    """Name relative to the folder -> bytes, of all files below ``under`` of a URL; none where it is not there."""
    with reached(folder, "read"):
        fs, root = filesystem(folder)
        fs.invalidate_cache()  # other machines write here too
        found = fs.find(f"{root}/{under}".rstrip("/"), detail=True)
        return {name[len(root) + 1 :]: int(told.get("size") or 0) for name, told in sorted(found.items())}


def load(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of files of a URL, asked for all at once; a file that is not there is left out."""
    if not names:
        return {}
    with reached(folder, "read"):
        fs, root = filesystem(folder)
        found = fs.cat([f"{root}/{name}" for name in names], on_error="return")
        contents = {name[len(root) + 1 :]: content for name, content in found.items()}
        for content in contents.values():
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                raise content
    return {name: content for name, content in contents.items() if isinstance(content, bytes)}


def send(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files of a URL whole, each by one request where the store has such."""
    with reached(folder, "written to"):
        fs, root = filesystem(folder)
        if cast(Any, folder).protocol not in BUCKETS:
            for parent in {f"{root}/{name}".rpartition("/")[0] for name in contents}:
                fs.makedirs(parent, exist_ok=True)
        if contents:
            fs.pipe({f"{root}/{name}": content for name, content in contents.items()})
