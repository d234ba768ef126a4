"""Where the answers of a trial that has not ended lie in an output folder of this machine."""

from __future__ import annotations

from pathlib import Path

from headwise_lab.store.locations import is_local

FOLDER = "answers"


def path_in(folder: Path, identity: str) -> Path:
    """The file of a trial's answers in an output folder of this machine."""
    return folder / FOLDER / f"{identity}.jsonl"


def forget(folder: Path, identity: str) -> None:
    """Remove the answers of a trial whose record is written; its folder goes with the last of them."""
    if is_local(folder):
        path = path_in(folder, identity)
        try:
            path.unlink()
            path.parent.rmdir()
        except OSError:
            return  # there was none, or others are under way
