"""Which commit of a dataset is meant: what the hub says, remembered for when it cannot be asked."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.benchmarks.hub.reference import HUB, Reference
from headwise_lab.models.checkpoints import first_line
from headwise_lab.store.atomic import put
from headwise_lab.store.cache_folder import cache

COMMIT = re.compile("[0-9a-f]{40}")
MAIN = "main"
TIMEOUT = 20.0  # seconds to wait for the hub's answer


def resolved(reference: Reference) -> str:
    """The commit that a revision of the hub names, without a connection the one it named last time; DataError if none.

    For a local copy it is a digest that changes with its files.
    """
    if reference.local:
        return _files_digest(reference)
    if COMMIT.fullmatch(reference.revision or ""):
        return str(reference.revision)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    name = reference.dataset or ""
    try:
        found = HfApi().dataset_info(name, revision=reference.revision, timeout=TIMEOUT).sha
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(
            f"there is no dataset {name} on the Hugging Face hub, or it is private: check the id, or run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"the dataset {name} has no revision {reference.revision!r}; leave it out for main") from error
    except Exception as error:  # offline, no connection, the hub is down: each has its own class
        commit = known(reference)
        if commit is None:
            raise DataError(
                f"the dataset {name} is not in the cache, and the hub cannot be reached ({first_line(error)[:120]});"
                " run this once with a connection, or give --data a folder with the official files or hub:FOLDER with"
                " a copy of the dataset"
            ) from error
        return commit
    _note(reference, str(found))
    return str(found)


def known(reference: Reference) -> str | None:
    """The commit that a revision of the hub named when it was last asked; None where it never was."""
    if COMMIT.fullmatch(reference.revision or ""):
        return reference.revision
    try:
        return _note_path(reference).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def place(reference: Reference) -> Path:
    """Where a dataset's folders lie in the cache."""
    name = "local" if reference.local else str(reference.dataset).replace("/", "--")
    return cache() / HUB / name


def _files_digest(reference: Reference) -> str:
    """What tells a local copy from a changed one: names, sizes and times of its files."""
    folder = Path(str(reference.dataset))
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} with a copy of a dataset")
    if reference.revision:
        raise DataError(f"{folder} is a local copy, which has no revision {reference.revision!r}; leave it out")
    found = hashlib.sha256()
    for path in sorted((*folder.rglob("*.parquet"), *folder.glob("README.md"))):
        told = path.stat()
        found.update(f"{path.relative_to(folder)} {told.st_size} {told.st_mtime_ns}\n".encode())
    return found.hexdigest()[:40]


def _note(reference: Reference, commit: str) -> None:
    """Remember what a revision named."""
    path = _note_path(reference)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, commit.encode(), durable=False)
    except OSError as error:
        raise DataError(f"{path.parent} cannot be written to ({error.strerror}); set HEADWISE_CACHE") from error


def _note_path(reference: Reference) -> Path:
    name = (reference.revision or MAIN).replace("/", "--")
    return place(reference) / f"revision-{name}"
