"""``headwise.json``: whose output folder it is. Folders of others are left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.store.atomic import is_part

MANIFEST = "headwise.json"
SCHEMA = 1


def manifest(kind: str) -> bytes:
    """What a folder for results of one kind holds as its manifest."""
    told = {"schema": SCHEMA, "kind": kind, "headwise": version("headwise")}
    return (json.dumps(told, indent=1) + "\n").encode()


def half_written(found: bytes, wanted: bytes) -> bool:
    """Whether a manifest is the beginning of the wanted one, as after copying was cut short."""
    return len(found) < len(wanted.rstrip()) and wanted.startswith(found)


def mended(folder: Path) -> str:
    """That a manifest was written again."""
    return f"{folder}/{MANIFEST} was half-written and has been written again"


def refuse_foreign(folder: Path, names: Iterable[str], is_ours: Callable[[], bool]) -> None:
    """Raise DataError where a folder without manifest holds anything but what a kill during its creation leaves.

    ``is_ours`` looks for the manifest: after ``names`` were listed, as another process may make it at the same time.
    """
    foreign = sorted(name for name in names if not (name.startswith(f".{MANIFEST}.") or is_part(Path(name))))
    if foreign and not is_ours():
        raise DataError(
            f"{folder} holds {foreign[0]} and no {MANIFEST}, so it is not an output folder of headwise; give"
            " --out a new or empty folder"
        )


def compare(folder: Path, found: bytes, wanted: bytes) -> None:
    """Raise DataError where a manifest is not whole, or of another kind of run or another version of headwise."""
    told, asked = _read(found, f"{folder}/{MANIFEST}"), json.loads(wanted)
    if {**asked, **told} != asked:
        held, here = (f"{one.get('kind')} of headwise {one.get('headwise')}" for one in (told, asked))
        raise DataError(f"{folder} belongs to {held}, not to {here}; give --out a folder of its own")


def kind_in(found: bytes) -> str | None:
    """The kind that a manifest tells; None where it tells none."""
    try:
        return str(json.loads(found)["kind"])
    except (ValueError, LookupError, TypeError):
        return None


def _read(found: bytes, where: str) -> Mapping[str, object]:
    try:
        told = json.loads(found)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise DataError(f"{where} is half-written or not ours; give --out a new or empty folder, or delete this one")
    return told
