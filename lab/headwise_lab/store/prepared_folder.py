"""Preparing a benchmark folder: completely or not at all, and never over other files."""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headwise.errors import DataError

STAMP = "prepared.json"  # written last: a folder that has it is complete

Stamp = Mapping[str, object]  # benchmark, version, count, seed


def prepared(folder: Path, stamp: Stamp, build: Callable[[Path], None]) -> None:
    """Call ``build`` to fill ``folder``, unless the folder has this stamp already.

    The folder is built under a hidden name and renamed, so that nobody sees half of it. Raises DataError where
    ``folder`` holds other files or cannot be written to.
    """
    folder = folder.resolve()
    if _is_done(folder, stamp):
        return
    workplace = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        workplace.mkdir(parents=True)
        build(workplace)
        (workplace / STAMP).write_text(json.dumps(dict(stamp)) + "\n", encoding="utf-8")
        _move(workplace, folder, stamp)
    except OSError as error:
        raise DataError(f"{stamp['benchmark']} cannot be written to {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def forget_stale(folder: Path, workplace: Path, age: float) -> None:
    """Delete hidden folders that killed builds left more than ``age`` seconds ago, but not ``workplace``, in use."""
    for path in folder.parent.glob(f".{folder.name}.*"):
        if path != workplace and time.time() - path.stat().st_mtime > age:
            shutil.rmtree(path, ignore_errors=True)


def _move(workplace: Path, folder: Path, stamp: Stamp) -> None:
    try:
        workplace.rename(folder)  # replaces an empty folder and no other
    except OSError:
        if not _is_done(folder, stamp):  # otherwise another process has built the same content meanwhile
            raise


def _is_done(folder: Path, stamp: Stamp) -> bool:
    """Whether the folder has the stamp; raises DataError where it holds other files."""
    try:
        names = sorted(item.name for item in folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"{stamp['benchmark']} cannot be written to {folder}: {error.strerror}") from error
    if not names:
        return False
    found = _stamp(folder / STAMP) if STAMP in names else None
    if found == dict(stamp):
        return True
    holds = json.dumps(found) if found else names[0]
    raise DataError(
        f"{folder} holds {holds}, wanted {json.dumps(dict(stamp))}; choose another folder or delete this one"
    )


def _stamp(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
