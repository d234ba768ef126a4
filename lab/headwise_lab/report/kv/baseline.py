"""The baseline of KV runs: StreamingLLM, the uniform budget, interpolated at any context between two of its runs.

Between neighbouring runs, the loss of every token is interpolated linearly in the logarithm of the context. The
perplexity of the baseline is exp of the interpolated mean loss, and a difference to it is paired token by token.
Outside the runs there is no baseline: nothing is extrapolated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import attrs

from headwise.errors import DataError
from headwise_lab.report.kv.runs import UNIFORM, KvRun
from headwise_lab.report.matching import interpolated
from headwise_lab.stats.interpolation import interpolation_error, left_out, place

SAME = 0.005
"""Contexts that differ by less than this share count as one budget."""


@attrs.frozen(eq=False)
class Baseline:
    """The uniform budget at one context: token -> interpolated loss.

    ``error``: how far off its mean loss may be, in nats; None where there are only two uniform runs, which do not show
    it. ``between``: the runs it was interpolated from.
    """

    context: float
    nll: dict[str, float]
    error: float | None
    between: tuple[KvRun, ...]

    @property
    def ppl(self) -> float:
        """exp of the mean interpolated loss."""
        return math.exp(math.fsum(self.nll.values()) / len(self.nll))


@attrs.frozen(eq=False)
class UniformCurve:
    """Uniform runs with the same sinks and positions, by ascending context."""

    runs: tuple[KvRun, ...]

    @classmethod
    def of(cls, runs: Sequence[KvRun]) -> UniformCurve:
        """The curve of the sinks and positions with most usable runs; of runs with equal contexts, the last is used."""
        found = [run for run in runs if run.part == UNIFORM and run.nll]
        if not found:
            return cls(())
        family = Counter(run.family for run in found).most_common(1)[0][0]
        by_context = {run.context: run for run in found if run.family == family}
        return cls(tuple(by_context[context] for context in sorted(by_context)))

    @property
    def contexts(self) -> list[float]:
        """The contexts of the runs, ascending."""
        return [run.context for run in self.runs]

    def at(self, context: float) -> Baseline:
        """The baseline at a context; DataError where it lies outside the runs or they share no tokens."""
        found = place(self.contexts, context)
        if found is None:
            raise DataError(self._refusal(context))
        left, right = self.runs[found.left], self.runs[found.right]
        nll = interpolated(left.nll or {}, right.nll or {}, found.share)
        if not nll:
            raise DataError(f"{left.name} and {right.name} share no tokens, so nothing lies between them")
        error = interpolation_error(self.contexts, self.losses, found)
        return Baseline(context, nll, error, (left,) if left is right else (left, right))

    @property
    def losses(self) -> list[float]:
        """The mean loss of each run."""
        return [math.fsum(run.nll.values()) / len(run.nll) for run in self.runs if run.nll]

    def left_out(self) -> dict[str, float]:
        """Inner run -> error of the perplexity interpolated from its two neighbours, in per cent."""
        errors = left_out(self.contexts, self.losses)
        inner = self.runs[1:-1]
        return {run.name: 100 * math.expm1(error) for run, error in zip(inner, errors, strict=True)}

    def _refusal(self, context: float) -> str:
        if len(self.runs) < 2:
            return f"a context of {context:.1f} needs uniform runs on both sides, and there are {len(self.runs)} in all"
        low, high = self.contexts[0], self.contexts[-1]
        return (
            f"a context of {context:.1f} lies outside the uniform runs ({low:.1f} to {high:.1f}), and none is guessed"
        )


def same_context(ours: float, theirs: float) -> bool:
    """Whether two contexts count as one budget, so that their runs may be compared without a baseline."""
    return abs(ours - theirs) <= SAME * max(ours, theirs)
