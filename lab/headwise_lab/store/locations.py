"""Locations of output folders: on this machine, or behind any URL that fsspec knows, such as an object store.

Programs that only read copy what is behind a URL (``working_copy.at_hand``) and then work on local files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from headwise.errors import DataError, HeadwiseError
from headwise.reading import local_path

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

OBJECTS = "records"
"""The folder behind a URL with one object for each record; a local folder has ``results.jsonl`` instead."""

BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos"})
"""Schemes of stores without real folders, only common prefixes of names; making a folder there could make a bucket."""


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
    """Whether a folder is in a filesystem of this machine, which can lock files and append to them."""
    return isinstance(folder, Path)


def _local(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise DataError(f"{url} names the machine {parts.netloc}; give file:///absolute/path, or the path alone")
    return local_path(url2pathname(parts.path))


def _installed(scheme: str, url: str) -> None:
    """Raise DataError where no installed package can read URLs of a scheme; uses no network."""
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
    """Turns any exception inside, such as of the network or of access rights, into a DataError of one sentence.

    ``doing``: "read", "written to", ...
    """
    try:
        yield
    except HeadwiseError:
        raise
    except Exception as error:  # every filesystem has its own errors
        hint = "check that it exists, that you have access, and that the network is up; what is stored there stays"
        raise DataError(f"{folder} cannot be {doing} ({_first_line(error)}); {hint}") from error


def _first_line(error: Exception) -> str:
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(message).strip().partition("\n")[0].rstrip(".")


class _Remote(Protocol):
    """The attributes of a ``UPath`` that a local ``Path`` does not have."""

    fs: AbstractFileSystem
    path: str
    protocol: str


def filesystem(folder: Path) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of a URL, and the folder's name in it without a ``/`` at the end."""
    remote = cast(_Remote, folder)
    return remote.fs, remote.path.rstrip("/")


def files_in(folder: Path, under: str = "") -> dict[str, int]:
    """Name relative to the folder -> size in bytes, for all files below ``under``; empty where that does not exist."""
    with reached(folder, "read"):
        fs, root = filesystem(folder)
        fs.invalidate_cache()  # other machines write here too
        found = fs.find(f"{root}/{under}".rstrip("/"), detail=True)
        return {name[len(root) + 1 :]: int(file.get("size") or 0) for name, file in sorted(found.items())}


def load(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of files behind a URL, requested together; a file that does not exist is left out."""
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
    """Write files behind a URL, each whole: by one request where the store supports that."""
    with reached(folder, "written to"):
        fs, root = filesystem(folder)
        if cast(_Remote, folder).protocol not in BUCKETS:
            for parent in {f"{root}/{name}".rpartition("/")[0] for name in contents}:
                fs.makedirs(parent, exist_ok=True)
        if contents:
            fs.pipe({f"{root}/{name}": content for name, content in contents.items()})
