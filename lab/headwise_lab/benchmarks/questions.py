"""Where a benchmark's questions come from: a folder on disk, a dataset of the hub, or what is prepared and cached."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from headwise.errors import DataError
from headwise.reading import local_path
from headwise_lab.benchmarks import Benchmark, Question
from headwise_lab.benchmarks.hub import Reference, is_reference
from headwise_lab.store.cache_folder import cache

COUNT = 500
"""Questions prepared of a synthetic benchmark; a larger limit prepares as many as it asks for."""


def questions_of(
    benchmark: Benchmark, *, data: str | Path | None = None, limit: int | None = None, seed: int = 0
) -> list[Question]:
    """The first ``limit`` questions of ``benchmark``.

    They are read from ``data``, or from its folder with the benchmark's name where it has one; ``hub...`` is a dataset
    (headwise_lab.benchmarks.hub); without ``data`` they are prepared from ``seed``. Raises DataError where there are
    none or they are malformed.
    """
    if data is None:
        folder = _prepared(benchmark, max(limit or COUNT, COUNT), seed)
    elif is_reference(data):
        from headwise_lab.benchmarks.hub.caching import folder_of  # which imports the benchmarks' files and this module

        folder = folder_of(data, benchmark, limit)
    else:
        folder = _own(Path(data), benchmark)
    questions = benchmark.load(folder, limit)
    if not questions:
        raise DataError(f"{folder} holds no question of {benchmark.name}; nothing can be measured on it")
    return questions


def pinned(data: str | Path | None, benchmark: Benchmark) -> str | None:
    """``data`` as it should be written down: a dataset of the hub with the revision that was read."""
    if data is None or not is_reference(data):
        return None if data is None else str(data)
    from headwise_lab.benchmarks.hub import caching

    return caching.pinned(data, benchmark)


def beside(folder: Path, data: str) -> str:
    """What a file in ``folder`` says about its data: relative paths are meant from there, hub ids and URLs are not."""
    if "://" in data:
        return data
    if is_reference(data):
        return Reference.of(data).beside(folder).text
    return str((folder / local_path(data)).absolute())


def _own(data: Path, benchmark: Benchmark) -> Path:
    if not data.is_dir():
        raise DataError(f"there is no data folder {data}; give one with the files of {benchmark.name}")
    return data / benchmark.name if (data / benchmark.name).is_dir() else data


def _prepared(benchmark: Benchmark, count: int, seed: int) -> Path:
    folder = cache() / version("headwise") / f"{benchmark.name}-{count}-seed{seed}"
    benchmark.prepare(folder, count, seed)
    return folder
