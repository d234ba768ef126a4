"""What ``--data hub...`` says: which dataset, at which revision, and which part of it."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise.reading import local_path

HUB = "hub"
FORM = "hub, hub:OWNER/NAME[@REVISION][:CONFIG][:SPLIT], or hub:FOLDER[:CONFIG][:SPLIT] with ./, / or ~/ before FOLDER"
ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)


def is_reference(data: str | Path) -> bool:
    """Whether ``--data`` names a dataset of the hub or a copy of one, and not a folder of official files."""
    return str(data) == HUB or str(data).startswith(f"{HUB}:")


@attrs.frozen
class DatasetReference:
    """A dataset on the Hugging Face hub or in a local folder; None stands for what the benchmark usually takes."""

    dataset: str | None = None
    revision: str | None = None
    config: str | None = None
    split: str | None = None

    @classmethod
    def of(cls, data: str | Path) -> DatasetReference:
        """Read ``hub...``; raises DataError where it has another form."""
        _, _, rest = str(data).partition(":")
        named, *parts = rest.split(":")
        dataset, at, revision = (named, "", "") if _is_path(named) else named.partition("@")
        if len(parts) > 2 or (at and not revision) or (dataset and not _is_path(dataset) and not ID.fullmatch(dataset)):
            raise DataError(f"{data} names no dataset; wanted: {FORM}")
        config, split = (*parts, "", "")[:2]
        return cls(dataset or None, revision or None, config or None, split or None)

    @property
    def local(self) -> bool:
        """Whether the dataset is a folder of this machine."""
        return self.dataset is not None and _is_path(self.dataset)

    @property
    def text(self) -> str:
        """The text that ``--data`` takes for this dataset."""
        if self == DatasetReference():
            return HUB
        named = (self.dataset or "") + (f"@{self.revision}" if self.revision else "")
        return ":".join([HUB, named, self.config or "", self.split or ""]).rstrip(":")

    def beside(self, folder: Path) -> DatasetReference:
        """The same dataset; a relative local path starts in ``folder``."""
        if self.dataset is None or not self.local:
            return self
        return attrs.evolve(self, dataset=str((folder / local_path(self.dataset)).absolute()))


def _is_path(named: str) -> bool:
    return named in (".", "..", "~") or named.startswith(("/", "./", "../", "~/"))
