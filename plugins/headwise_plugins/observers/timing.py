"""How long strategies take: wall-clock time of every hook call."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator
from statistics import median
from typing import Any

from headwise import hookimpl

Wrapped = Generator[None, Any, Any]


class Timing:
    """Times every hook call, failed ones included: ``seconds`` maps a hook to its calls' durations.

    The clock is the host's: on a GPU, which works behind the host's back, it tells what a call cost to launch. Query
    weights and token choices that are functions run outside the hooks and are not timed. Calls of strategies that
    another strategy uses are a part of its own call, and not counted again.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._inside = False

    def summary(self) -> dict[str, dict[str, float]]:
        """Hook -> its number of ``calls`` and their median duration in ``ms``."""
        return {hook: {"calls": len(times), "ms": 1000 * median(times)} for hook, times in self.seconds.items()}

    def _timed(self, hook: str) -> Wrapped:
        if self._inside:
            return (yield)
        self._inside, start = True, time.perf_counter()
        try:
            return (yield)
        finally:
            self._inside = False
            self.seconds[hook].append(time.perf_counter() - start)

    @hookimpl(wrapper=True)
    def query_selection(self) -> Wrapped:
        """Times query_selection."""
        return (yield from self._timed("query_selection"))

    @hookimpl(wrapper=True)
    def head_scoring(self) -> Wrapped:
        """Times head_scoring."""
        return (yield from self._timed("head_scoring"))

    @hookimpl(wrapper=True)
    def head_count(self) -> Wrapped:
        """Times head_count."""
        return (yield from self._timed("head_count"))

    @hookimpl(wrapper=True)
    def token_pruning(self) -> Wrapped:
        """Times token_pruning."""
        return (yield from self._timed("token_pruning"))

    @hookimpl(wrapper=True)
    def kv_eviction(self) -> Wrapped:
        """Times kv_eviction."""
        return (yield from self._timed("kv_eviction"))

    @hookimpl(wrapper=True)
    def head_classification(self) -> Wrapped:
        """Times head_classification."""
        return (yield from self._timed("head_classification"))
