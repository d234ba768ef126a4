"""Benchmarks by name: what the entry points of the group ``headwise.benchmark`` offer."""

from __future__ import annotations

from headwise.blame import guarded
from headwise.errors import StrategyError
from headwise.registry import built, check_contract, installed, only, owner_of
from headwise_lab.benchmarks.base import SUFFIX, Benchmark, Question

__all__ = ["SUFFIX", "Benchmark", "Question", "benchmark", "names", "synthetic"]

GROUP = "benchmark"


def names() -> list[str]:
    """The benchmarks that are installed, sorted; nothing is imported."""
    return list(installed(GROUP))


def synthetic() -> list[str]:
    """The installed benchmarks that prepare their own questions and so need no files, sorted."""
    return [name for name in names() if not getattr(benchmark(name), "needs_data", False)]


def benchmark(name: str) -> Benchmark:
    """The benchmark ``name`` or ``OWNER/name``; raises StrategyError if there is none, several, or it is broken."""
    owner, _, bare = name.rpartition("/")
    entry = only(GROUP, bare, installed(GROUP), owner or None)
    who = f"benchmark {bare!r} ({owner_of(entry)})"
    made = built(entry)
    check_contract(made, who)
    kept = guarded(made, who)
    if not isinstance(kept, Benchmark):
        raise StrategyError(f"{who}: {entry.value} lacks part of the benchmark contract, headwise_lab.benchmarks.base")
    return kept
