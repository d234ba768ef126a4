"""Datasets in the cache: found out which revision is meant, written once, never half."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks import Benchmark
from headwise_lab.benchmarks.hub.layouts import Layout, layout_of
from headwise_lab.benchmarks.hub.reference import Reference
from headwise_lab.benchmarks.hub.revisions import known, place, resolved
from headwise_lab.benchmarks.hub.source import DatasetError, Source
from headwise_lab.store.prepared_folder import STAMP, forget_stale, prepared
from headwise_lab.terminal.progress import counted

FORMAT = 1  # raised when the files that are written change
STALE = 7 * 24 * 3600.0  # seconds after which a half-written folder is nobody's work in progress


def folder_of(data: str | Path, benchmark: Benchmark, limit: int | None) -> Path:
    """A folder with official files made of a dataset, which is read unless that was done before.

    Without a limit it holds all rows. With one it holds those that the first ``limit`` questions need, which are the
    questions that the loader would take from all of them. DataError in one sentence where the dataset cannot be had.
    """
    layout = layout_of(benchmark)
    reference = _whole(Reference.of(data), layout)
    revision = resolved(reference)
    cut = limit if layout.cut else None
    every = _stamp(layout, reference, revision, None)
    if cut is None or (_target(reference, every) / STAMP).is_file():
        return _kept(every, reference, revision, layout, benchmark)
    return _kept(_stamp(layout, reference, revision, cut), reference, revision, layout, benchmark)


def pinned(data: str | Path, benchmark: Benchmark) -> str:
    """``--data`` with the revision that was read last; for folders and local copies, ``data`` as it is."""
    reference = Reference.of(data)
    if reference.local:
        return str(data)
    asked = _whole(reference, layout_of(benchmark))
    return attrs.evolve(reference, dataset=asked.dataset, revision=known(asked) or asked.revision).text


def _whole(reference: Reference, layout: Layout) -> Reference:
    """The reference with the benchmark's usual dataset and config where it names none."""
    found = attrs.evolve(
        reference, dataset=reference.dataset or layout.dataset, config=reference.config or layout.config
    )
    return found.beside(Path.cwd())


Stamp = dict[str, object]


def _stamp(layout: Layout, reference: Reference, revision: str, cut: int | None) -> Stamp:
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


def _target(reference: Reference, stamp: Stamp) -> Path:
    named = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()[:16]
    return place(reference) / f"{stamp['benchmark']}-{named}"


def _kept(stamp: Stamp, reference: Reference, revision: str, layout: Layout, benchmark: Benchmark) -> Path:
    """The folder with this stamp, filled where it is not there yet."""
    target, cut = _target(reference, stamp), stamp["first"]
    limit = cut if isinstance(cut, int) else None

    def build(workplace: Path) -> None:
        forget_stale(target, workplace, STALE)
        with counted(f"{benchmark.name} from {reference.dataset}", limit) as advance:
            splits = (reference.split,) if reference.split else layout.splits
            commit = None if reference.local else revision
            source = Source(str(reference.dataset), commit, reference.config, splits, advance)
            _fill(source, workplace, layout, benchmark, limit)

    prepared(target, stamp, build)
    return target


def _fill(source: Source, workplace: Path, layout: Layout, benchmark: Benchmark, limit: int | None) -> None:
    """Write the files and read them once, so that nothing is kept that the loader would refuse."""
    try:
        layout.write(source, workplace, limit)
        if not benchmark.load(workplace, limit):
            raise DataError("it holds no question")
    except DatasetError:
        raise
    except (DataError, TypeError) as error:  # TypeError: a column of another type
        told = str(error).replace(f"{workplace}/", "")
        raise source.wrong(
            f"is not in the layout of {layout.dataset}, which {benchmark.name} is read from: {told}"
        ) from error
