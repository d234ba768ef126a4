"""The conformance kit of benchmarks, which ``headwise check`` and ``headwise.testing`` find by their kind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from headwise.errors import DataError
from headwise.reading import local_path
from headwise_lab.benchmarks import benchmark
from headwise_lab.benchmarks.laws import LAWS, Law, Subject


class BenchmarkKit:
    """Every law of a benchmark, on the questions that it prepares itself, or on a folder with its files."""

    first: ClassVar[Sequence[str]] = ("contract_is_whole", "questions_are_whole")

    def laws(self) -> Mapping[str, Law]:
        """Name -> law, in the order in which they are tried."""
        return {law.__name__: law for law in LAWS}

    def check_given(self, name: str, data: str | None) -> None:
        """Raise DataError for a benchmark that needs files where none are given, StrategyError where there is none."""
        if data is None and getattr(benchmark(name), "needs_data", False):
            raise DataError(f"{name} prepares no questions of its own; give --data DIR, a folder with its files")

    def problem(self, name: str, law: str, data: str | None) -> Exception | None:
        """What a law, or the benchmark, raises; None where the law holds."""
        try:
            with _subject(name, data) as subject:
                self.laws()[law](subject)
        except Exception as error:
            return error
        return None


@contextmanager
def _subject(name: str, data: str | None) -> Iterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="headwise-check-") as workplace:
        folder = Path(workplace, "questions") if data is None else local_path(data)
        subject = Subject(name, folder, data is None, benchmark(name))
        if subject.own:
            subject.prepare(folder)
        yield subject
