"""The commit that a dataset's revision names. The hub is asked; its answer is kept for when it cannot be reached."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.benchmarks.hub.reference import HUB, DatasetReference
from headwise_lab.models.checkpoints import first_line
from headwise_lab.store.atomic import put
from headwise_lab.store.cache_folder import cache

COMMIT = re.compile("[0-9a-f]{40}")
MAIN = "main"
TIMEOUT = 20.0  # seconds to wait for the hub's answer


def resolved(reference: DatasetReference) -> str:
    """The commit that a revision names; without a connection, the commit that the hub gave last time.

    A local copy has a digest in its place, which changes with its files. Raises DataError where nothing is known.
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


def known(reference: DatasetReference) -> str | None:
    """The commit that a revision of the hub named when it was last asked; None where it never was."""
    if COMMIT.fullmatch(reference.revision or ""):
        return reference.revision
    try:
        return _note_path(reference).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def cache_folder_of(reference: DatasetReference) -> Path:
    """The folder of a dataset in the cache."""
    name = "local" if reference.local else str(reference.dataset).replace("/", "--")
    return cache() / HUB / name


def _files_digest(reference: DatasetReference) -> str:
    """A digest over names, sizes and times of a local copy's files, which changes when they do."""
    folder = Path(str(reference.dataset))
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} with a copy of a dataset")
    if reference.revision:
        raise DataError(f"{folder} is a local copy, which has no revision {reference.revision!r}; leave it out")
    found = hashlib.sha256()
    for path in sorted((*folder.rglob("*.parquet"), *folder.glob("README.md"))):
        facts = path.stat()
        found.update(f"{path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return found.hexdigest()[:40]


def _note(reference: DatasetReference, commit: str) -> None:
    """Keep the commit that a revision named."""
    path = _note_path(reference)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, commit.encode(), durable=False)
    except OSError as error:
        raise DataError(f"{path.parent} cannot be written to ({error.strerror}); set HEADWISE_CACHE") from error


def _note_path(reference: DatasetReference) -> Path:
    name = (reference.revision or MAIN).replace("/", "--")
    return cache_folder_of(reference) / f"revision-{name}"
