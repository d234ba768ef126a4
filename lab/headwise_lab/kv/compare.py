"""What one strategy changes against another on the same tokens: paired differences of loss, accuracy and perplexity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.stats.differences import Difference, paired


@attrs.frozen
class Comparison:
    """Ours against theirs, token by token.

    ``nll``: difference of the loss in nats, above 0 where ours is worse. ``accuracy``: difference of the share of next
    tokens foretold. ``ratio``: our perplexity over theirs, exp(nll), with its standard error by the delta method.
    """

    nll: Difference
    accuracy: Difference
    ratio: float
    ratio_se: float

    @property
    def clear(self) -> bool:
        """Whether the losses differ by at least two standard errors over enough tokens."""
        return self.nll.clear


def compare(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> Comparison:
    """Compare the outcomes of two records; raises DataError where they have no token in common."""
    nll = paired(_by_id(ours, "score"), _by_id(theirs, "score"))
    accuracy = paired(_by_id(ours, "right"), _by_id(theirs, "right"))
    if nll is None or accuracy is None:
        raise DataError("the two records have scored no token in common; compare runs on the same text")
    ratio, ratio_se = perplexity(nll.value, nll.se)
    return Comparison(nll, accuracy, ratio, ratio_se)


def perplexity(nll: float, se: float) -> tuple[float, float]:
    """exp of a mean loss and its standard error by the delta method; also a ratio from a difference of losses."""
    value = math.exp(nll)
    return value, value * se


def _by_id(outcomes: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    return {outcome["id"]: float(outcome[key]) for outcome in outcomes}
