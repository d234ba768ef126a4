"""``headwise.json`` marks an output folder of headwise. Headwise writes into no other folder that has files."""

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
    """The content of the manifest in a folder for results of one kind."""
    content = {"schema": SCHEMA, "kind": kind, "headwise": version("headwise")}
    return (json.dumps(content, indent=1) + "\n").encode()


def half_written(found: bytes, wanted: bytes) -> bool:
    """Whether a manifest is only the beginning of the wanted one, as after an interrupted copy."""
    return len(found) < len(wanted.rstrip()) and wanted.startswith(found)


def mended(folder: Path) -> str:
    """The warning that a manifest was written again."""
    return f"{folder}/{MANIFEST} was half-written and has been written again"


def refuse_foreign(folder: Path, names: Iterable[str], is_ours: Callable[[], bool]) -> None:
    """Raise DataError where a folder without manifest has other files than those left when its creation was killed.

    ``is_ours`` looks for the manifest. It is called after ``names`` were listed, because another process may write the
    manifest at the same time.
    """
    foreign = sorted(name for name in names if not (name.startswith(f".{MANIFEST}.") or is_part(Path(name))))
    if foreign and not is_ours():
        raise DataError(
            f"{folder} holds {foreign[0]} and no {MANIFEST}, so it is not an output folder of headwise; give"
            " --out a new or empty folder"
        )


def compare(folder: Path, found: bytes, wanted: bytes) -> None:
    """Raise DataError where a manifest is not whole, or belongs to another kind of run or version of headwise."""
    present, asked = _read(found, f"{folder}/{MANIFEST}"), json.loads(wanted)
    if {**asked, **present} != asked:
        theirs, ours = (f"{one.get('kind')} of headwise {one.get('headwise')}" for one in (present, asked))
        raise DataError(f"{folder} belongs to {theirs}, not to {ours}; give --out a folder of its own")


def kind_in(found: bytes) -> str | None:
    """The kind in a manifest; None where there is none."""
    try:
        return str(json.loads(found)["kind"])
    except (ValueError, LookupError, TypeError):
        return None


def _read(found: bytes, where: str) -> Mapping[str, object]:
    try:
        content = json.loads(found)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DataError(
            f"{where} is half-written, or headwise did not write it; give --out a new or empty folder, or delete this"
            " one"
        )
    return content
