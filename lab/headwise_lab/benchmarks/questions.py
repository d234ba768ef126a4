"""Where a benchmark's questions come from: a folder on disk, a dataset of the hub, or a prepared folder."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from pathlib import Path

from headwise.errors import DataError
from headwise.reading import local_path
from headwise_lab.benchmarks import Benchmark, Question
from headwise_lab.benchmarks.hub import DatasetReference, is_reference
from headwise_lab.store.cache_folder import cache

COUNT = 500
"""So many questions of a synthetic benchmark are prepared, or ``limit`` of them where that is more."""


def questions_of(
    benchmark: Benchmark, *, data: str | Path | None = None, limit: int | None = None, seed: int = 0
) -> list[Question]:
    """The first ``limit`` questions of ``benchmark``.

    ``data`` is a folder with official files, or a folder with such a folder under the benchmark's name. ``hub...`` is a
    dataset (headwise_lab.benchmarks.hub). Without ``data``, questions are prepared from ``seed``. Raises DataError for
    malformed questions, where there are none, or where two have one id (answers are paired by it).
    """
    if data is None:
        folder = _prepared(benchmark, max(limit or COUNT, COUNT), seed)
    elif is_reference(data):
        from headwise_lab.benchmarks.hub.caching import folder_of  # only a run with --data hub needs it

        folder = folder_of(data, benchmark, limit)
    else:
        folder = _own(Path(data), benchmark)
    questions = benchmark.load(folder, limit)
    if not questions:
        raise DataError(f"{folder} holds no question of {benchmark.name}; nothing can be measured on it")
    twice = [name for name, times in Counter(question.id for question in questions).items() if times > 1]
    if twice:
        raise DataError(
            f"benchmark {benchmark.name!r} gave several questions the id {twice[0]!r}; answers are paired by their "
            "question's id, so each needs its own"
        )
    return questions


def pinned(data: str | Path | None, benchmark: Benchmark) -> str | None:
    """``data`` as a record keeps it: a dataset of the hub has the revision that was read."""
    if data is None or not is_reference(data):
        return None if data is None else str(data)
    from headwise_lab.benchmarks.hub import caching

    return caching.pinned(data, benchmark)


def beside(folder: Path, data: str) -> str:
    """The absolute path of ``data``, which a file in ``folder`` names; hub ids and URLs stay as they are."""
    if "://" in data:
        return data
    if is_reference(data):
        return DatasetReference.of(data).beside(folder).text
    return str((folder / local_path(data)).absolute())


def _own(data: Path, benchmark: Benchmark) -> Path:
    if not data.is_dir():
        raise DataError(f"there is no data folder {data}; give one with the files of {benchmark.name}")
    return data / benchmark.name if (data / benchmark.name).is_dir() else data


def _prepared(benchmark: Benchmark, count: int, seed: int) -> Path:
    folder = cache() / version("headwise") / f"{benchmark.name}-{count}-seed{seed}"
    benchmark.prepare(folder, count, seed)
    return folder
