"""The rows of a dataset in the hub's parquet layout, read one by one from the hub or a local folder.

``datasets`` says which files make up a config and a split. pyarrow reads them a few rows at a time; pictures stay the
bytes that are stored. ``datasets`` does not read the rows, because its stream prefetches in threads that do not end
cleanly when a limit stops it early, and its ordinary loading writes a second copy of everything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from headwise.errors import DataError
from headwise_lab.models.checkpoints import first_line

INSTALL = "pip install 'headwise[hub]'"
BATCH = 16  # rows in memory at once: with pictures some tens of MB at most

Row = dict[str, Any]


class DatasetError(DataError):
    """An error about a dataset; it names the dataset."""


class HubDataset:
    """One dataset at one revision: ``rows`` reads a split, ``wrong`` makes an error about the dataset."""

    def __init__(
        self,
        dataset: str,
        revision: str | None,
        config: str | None,
        splits: Sequence[str],
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.dataset = dataset
        self.revision = revision
        self.config = config
        self.splits = tuple(splits)
        self._advance = advance
        self._files: dict[str | None, dict[str, list[str]]] = {}

    def rows(
        self, columns: Sequence[str], *, optional: Sequence[str] = (), config: str | None = None, split: str = ""
    ) -> Iterator[Row]:
        """The rows of a split (by default the first) with these columns; any fault is a DataError in one sentence."""
        config, split = config or self.config, split or self.splits[0]
        files = self.files(config)
        if split not in files:
            raise self.wrong(f"has no split {split!r}{_in(config)}; it has {', '.join(files)}")
        for path in files[split]:
            yield from self._read(path, tuple(columns), tuple(optional), f"{_in(config)} ({split})")

    def files(self, config: str | None) -> dict[str, list[str]]:
        """Split -> paths or URLs of its parquet files."""
        if config not in self._files:
            self._files[config] = self._found(config)
        return self._files[config]

    def wrong(self, what: str) -> DatasetError:
        """The error that says ``what`` is wrong with the dataset."""
        return DatasetError(f"the dataset {self.dataset} {what}; give another one as hub:OWNER/NAME:CONFIG:SPLIT")

    def _found(self, config: str | None) -> dict[str, list[str]]:
        try:
            import datasets
        except ImportError as error:
            raise DataError(f"--data hub needs the package datasets: {INSTALL}") from error
        with tempfile.TemporaryDirectory() as scratch:  # the builder makes an empty folder there
            try:
                builder = datasets.load_dataset_builder(self.dataset, config, revision=self.revision, cache_dir=scratch)
            except Exception as error:  # no such config, gated, no connection: each package has its own classes
                raise self.wrong(f"cannot be opened{_in(config)}: {first_line(error).rstrip('.')}") from error
        found = {
            str(split): [str(path) for path in paths] for split, paths in (builder.config.data_files or {}).items()
        }
        if not found or not all(path.endswith(".parquet") for paths in found.values() for path in paths):
            raise self.wrong(f"is not made of parquet files{_in(config)}")
        return found

    def _read(self, path: str, columns: tuple[str, ...], optional: tuple[str, ...], where: str) -> Iterator[Row]:
        """The rows of one file. Nothing is read ahead, so stopping early costs nothing."""
        import fsspec
        from pyarrow.parquet import ParquetFile

        try:
            with fsspec.open(path, "rb") as stream, ParquetFile(stream, pre_buffer=False) as file:
                there = file.schema_arrow.names
                self._check(there, columns, where)
                wanted = [*columns, *(column for column in optional if column in there)]
                for batch in file.iter_batches(batch_size=BATCH, columns=wanted, use_threads=False):
                    for row in batch.to_pylist():
                        yield row
                        self._advance(1)
        except DatasetError:
            raise
        except Exception as error:  # a broken file or connection
            raise self.wrong(f"cannot be read{where}: {first_line(error).rstrip('.')}") from error

    def _check(self, there: Sequence[str], columns: Sequence[str], where: str) -> None:
        missing = [column for column in columns if column not in there]
        if missing:
            raise self.wrong(f"lacks the columns {', '.join(missing)}{where}; it has {', '.join(there)}")


def _in(config: str | None) -> str:
    return f" in config {config!r}" if config else ""
