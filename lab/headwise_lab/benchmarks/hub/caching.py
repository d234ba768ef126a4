"""Datasets in the cache: each revision is written once, completely or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks import Benchmark
from headwise_lab.benchmarks.hub.layouts import HubLayout, layout_of
from headwise_lab.benchmarks.hub.reference import DatasetReference
from headwise_lab.benchmarks.hub.revisions import cache_folder_of, known, resolved
from headwise_lab.benchmarks.hub.source import DatasetError, HubDataset
from headwise_lab.store.prepared_folder import STAMP, forget_stale, prepared
from headwise_lab.terminal.progress import counted

FORMAT = 1  # raised when the files that are written change
STALE = 7 * 24 * 3600.0  # seconds after which no process is still writing to a half-written folder


def folder_of(data: str | Path, benchmark: Benchmark, limit: int | None) -> Path:
    """A folder with the official files of a dataset. The dataset is read only if the folder is not there yet.

    Without a limit the folder holds all rows. With a limit it holds the rows that the first ``limit`` questions need;
    the loader takes the same questions from them as from all rows. DataError where the dataset cannot be read.
    """
    layout = layout_of(benchmark)
    reference = _whole(DatasetReference.of(data), layout)
    revision = resolved(reference)
    cut = limit if layout.cut else None
    every = _stamp(layout, reference, revision, None)
    if cut is None or (_target(reference, every) / STAMP).is_file():
        return _kept(every, reference, revision, layout, benchmark)
    return _kept(_stamp(layout, reference, revision, cut), reference, revision, layout, benchmark)


def pinned(data: str | Path, benchmark: Benchmark) -> str:
    """``--data`` with the revision that was read last; a local copy has none, so ``data`` stays as it is."""
    reference = DatasetReference.of(data)
    if reference.local:
        return str(data)
    asked = _whole(reference, layout_of(benchmark))
    return attrs.evolve(reference, dataset=asked.dataset, revision=known(asked) or asked.revision).text


def _whole(reference: DatasetReference, layout: HubLayout) -> DatasetReference:
    """The reference with the benchmark's usual dataset and config where it names none."""
    found = attrs.evolve(
        reference, dataset=reference.dataset or layout.dataset, config=reference.config or layout.config
    )
    return found.beside(Path.cwd())


Stamp = dict[str, object]


def _stamp(layout: HubLayout, reference: DatasetReference, revision: str, cut: int | None) -> Stamp:
    splits = [reference.split] if reference.split else list(layout.splits)
    return {
        "benchmark": layout.kind,
        "dataset": reference.dataset,
        "revision": revision,
        "config": reference.config,
        "splits": splits,
        "first": cut,
        "format": FORMAT,
    }


def _target(reference: DatasetReference, stamp: Stamp) -> Path:
    named = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder_of(reference) / f"{stamp['benchmark']}-{named}"


def _kept(stamp: Stamp, reference: DatasetReference, revision: str, layout: HubLayout, benchmark: Benchmark) -> Path:
    """The folder with this stamp; where it is not there yet, it is written now."""
    target, cut = _target(reference, stamp), stamp["first"]
    limit = cut if isinstance(cut, int) else None

    def build(workplace: Path) -> None:
        forget_stale(target, workplace, STALE)
        with counted(f"{benchmark.name} from {reference.dataset}", limit) as advance:
            splits = (reference.split,) if reference.split else layout.splits
            commit = None if reference.local else revision
            source = HubDataset(str(reference.dataset), commit, reference.config, splits, advance)
            _fill(source, workplace, layout, benchmark, limit)

    prepared(target, stamp, build)
    return target


def _fill(source: HubDataset, workplace: Path, layout: HubLayout, benchmark: Benchmark, limit: int | None) -> None:
    """Write the files and have the loader read them once, so that the cache keeps nothing that it would refuse."""
    try:
        layout.write(source, workplace, limit)
        if not benchmark.load(workplace, limit):
            raise DataError("it holds no question")
    except DatasetError:
        raise
    except (DataError, TypeError) as error:  # TypeError: a column of another type
        message = str(error).replace(f"{workplace}/", "")
        raise source.wrong(
            f"is not in the layout of {layout.dataset}, which {benchmark.name} is read from: {message}"
        ) from error
