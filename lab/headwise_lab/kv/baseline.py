"""The uniform budget at any context: StreamingLLM's losses between two runs, and how far off that may be.

Between neighbouring runs the loss of every token is interpolated linearly in the logarithm of the context. The
perplexity of the baseline is exp of the interpolated mean loss, and a difference to it is paired token by token.
Outside the runs there is no baseline: nothing is extrapolated.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import attrs

from headwise.errors import DataError
from headwise_lab.kv.runs import UNIFORM, Run

SAME = 0.005
"""Contexts that differ by less than this share count as one budget."""


@attrs.frozen
class Place:
    """A context between two points of a curve: ``share`` of the way from ``left`` to ``right``, in log2(context)."""

    left: int
    right: int
    share: float


def place(contexts: Sequence[float], wanted: float) -> Place | None:
    """Where ``wanted`` lies among ascending contexts; None outside of them."""
    for index, context in enumerate(contexts):
        if math.isclose(context, wanted, rel_tol=1e-9):
            return Place(index, index, 0.0)
    for left, (low, high) in enumerate(itertools.pairwise(contexts)):
        if low < wanted < high:
            return Place(left, left + 1, math.log2(wanted / low) / math.log2(high / low))
    return None


def left_out(contexts: Sequence[float], values: Sequence[float]) -> list[float]:
    """Each inner point's error when it is left out: interpolated between its neighbours minus its own value."""
    errors = []
    for inner in range(1, len(contexts) - 1):
        share = math.log2(contexts[inner] / contexts[inner - 1]) / math.log2(contexts[inner + 1] / contexts[inner - 1])
        errors.append((1 - share) * values[inner - 1] + share * values[inner + 1] - values[inner])
    return errors


def interpolation_error(contexts: Sequence[float], values: Sequence[float], at: Place) -> float | None:
    """How far off the interpolation may be at a place, in the units of ``values``; None with fewer than three points.

    A curve of constant curvature errs by d1 * d2 * curvature / 2 at distances d1, d2 (in log2) from its neighbours.
    The curvature comes from the errors of leaving out the inner points next to the place; the larger one counts.
    """
    if at.share == 0:
        return 0.0
    errors = left_out(contexts, values)
    steps = [math.log2(high / low) for low, high in itertools.pairwise(contexts)]
    near = [
        abs(errors[inner - 1]) / (steps[inner - 1] * steps[inner])
        for inner in (at.left, at.right)
        if 0 < inner < len(contexts) - 1
    ]
    if not near:
        return None
    return max(near) * at.share * (1 - at.share) * steps[at.left] ** 2


@attrs.frozen(eq=False)
class Baseline:
    """The uniform budget at one context: token -> interpolated loss, its perplexity, and what may be wrong with it.

    ``error`` in nats, None where two runs alone say nothing about it; ``between``: the runs it comes from.
    """

    context: float
    nll: dict[str, float]
    error: float | None
    between: tuple[Run, ...]

    @property
    def ppl(self) -> float:
        """exp of the mean interpolated loss."""
        return math.exp(math.fsum(self.nll.values()) / len(self.nll))


@attrs.frozen(eq=False)
class Curve:
    """Uniform runs of one family (the same sinks and positions) in ascending order of context."""

    runs: tuple[Run, ...]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Curve:
        """The curve of the family with most runs that have outcomes; of runs of the same context the last counts."""
        found = [run for run in runs if run.part == UNIFORM and run.nll]
        if not found:
            return cls(())
        family = Counter(run.family for run in found).most_common(1)[0][0]
        by_context = {run.context: run for run in found if run.family == family}
        return cls(tuple(by_context[context] for context in sorted(by_context)))

    @property
    def contexts(self) -> list[float]:
        """Contexts of the runs, ascending."""
        return [run.context for run in self.runs]

    def at(self, context: float) -> Baseline:
        """The baseline at a context; DataError where it lies outside the runs or they share no tokens."""
        found = place(self.contexts, context)
        if found is None:
            raise DataError(self._refusal(context))
        left, right = self.runs[found.left], self.runs[found.right]
        low, high = left.nll or {}, right.nll or {}
        nll = {
            token: (1 - found.share) * loss + found.share * high[token] for token, loss in low.items() if token in high
        }
        if not nll:
            raise DataError(f"{left.name} and {right.name} share no tokens, so nothing lies between them")
        error = interpolation_error(self.contexts, self.losses, found)
        return Baseline(context, nll, error, (left,) if left is right else (left, right))

    @property
    def losses(self) -> list[float]:
        """Mean loss of each run."""
        return [math.fsum(run.nll.values()) / len(run.nll) for run in self.runs if run.nll]

    def left_out(self) -> dict[str, float]:
        """Name of each inner run -> per cent by which its perplexity is missed when it is left out."""
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


def same_budget(ours: Run, theirs: Run) -> bool:
    """Whether two runs have the same mean budget, and may be compared without a baseline."""
    return abs(ours.context - theirs.context) <= SAME * max(ours.context, theirs.context)
