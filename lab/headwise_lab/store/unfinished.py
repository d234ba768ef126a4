"""The file that holds the answers of an unfinished trial in a local output folder."""

from __future__ import annotations

from pathlib import Path

from headwise_lab.store.locations import is_local

FOLDER = "answers"


def path_in(folder: Path, identity: str) -> Path:
    """The file of a trial's answers in a local output folder."""
    return folder / FOLDER / f"{identity}.jsonl"


def forget(folder: Path, identity: str) -> None:
    """Remove the answers of a trial whose record is written, and their folder where it is empty then."""
    if is_local(folder):
        path = path_in(folder, identity)
        try:
            path.unlink()
            path.parent.rmdir()
        except OSError:
            return  # there were no answers, or other trials still have some
