"""Where a benchmark's questions come from: a folder on disk, or one that is prepared once and cached."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.benchmarks import Benchmark, Question

COUNT = 500
"""Questions prepared of a synthetic benchmark; a larger limit prepares as many as it asks for."""


def questions_of(
    benchmark: Benchmark, *, data: Path | None = None, limit: int | None = None, seed: int = 0
) -> list[Question]:
    """The first ``limit`` questions of ``benchmark``.

    They are read from ``data``, or from its folder with the benchmark's name where it has one; without ``data`` they
    are prepared from ``seed``. Raises DataError where there are none or they are malformed.
    """
    if data is None:
        folder = _prepared(benchmark, max(limit or COUNT, COUNT), seed)
    else:
        if not data.is_dir():
            raise DataError(f"there is no data folder {data}; give one with the files of {benchmark.name}")
        folder = data / benchmark.name if (data / benchmark.name).is_dir() else data
    questions = benchmark.load(folder, limit)
    if not questions:
        raise DataError(f"{folder} holds no question of {benchmark.name}; nothing can be measured on it")
    return questions


def _prepared(benchmark: Benchmark, count: int, seed: int) -> Path:
    folder = cache() / version("headwise") / f"{benchmark.name}-{count}-seed{seed}"
    benchmark.prepare(folder, count, seed)
    return folder


def cache() -> Path:
    """Headwise's cache folder: ``HEADWISE_CACHE``, else ``headwise`` in the user's cache."""
    own = os.environ.get("HEADWISE_CACHE")
    users = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or Path(users, "headwise")).expanduser().absolute()
