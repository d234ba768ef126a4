"""Each strategy of ``headwise ppl`` and ``headwise needle`` against the first one, by the rule of the project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.stats.differences import Difference, paired, paired_losses
from headwise_lab.stats.means import perplexity
from headwise_lab.stats.rule import corrected

Outcomes = Sequence[Mapping[str, Any]]


@attrs.frozen
class TextChange:
    """A strategy against the first on one text: loss in nats (below 0 is better), share of right next tokens."""

    loss: Difference
    right: Difference

    @property
    def ratio(self) -> tuple[float, float]:
        """Our perplexity over theirs, exp of the difference of losses, with its standard error."""
        return perplexity(self.loss.value, self.loss.se)


@attrs.frozen
class PromptChange:
    """A strategy against the first on the same prompts: share of found passkeys, log-probability of passkeys."""

    found: Difference
    logprob: Difference


def text_changes(first: Outcomes, others: Sequence[Outcomes]) -> list[TextChange]:
    """Every other strategy against the first, corrected together; raises DataError where two share no token."""
    losses = [paired_losses(_by_id(one, "score"), _by_id(first, "score")) for one in others]
    right = [paired_losses(_by_id(one, "right"), _by_id(first, "right"), lower_is_better=False) for one in others]
    return [TextChange(*pair) for pair in _together(losses, right)]


def prompt_changes(first: Outcomes, others: Sequence[Outcomes]) -> list[PromptChange]:
    """Every other strategy against the first, corrected together; raises DataError where two share no prompt."""
    found, logprob = ([paired(_by_id(one, key), _by_id(first, key)) for one in others] for key in ("score", "logprob"))
    return [PromptChange(*pair) for pair in _together(found, logprob)]


def _together(
    left: Sequence[Difference | None], right: Sequence[Difference | None]
) -> Iterator[tuple[Difference, Difference]]:
    """Two columns of one table, corrected together."""
    adjusted = iter(corrected([found for pair in zip(left, right, strict=True) for found in pair]))
    for one, other in zip(adjusted, adjusted, strict=True):
        if one is None or other is None:
            raise DataError("the two records have scored no token in common; compare runs on the same text")
        yield one, other


def _by_id(outcomes: Outcomes, key: str) -> dict[str, float]:
    return {outcome["id"]: float(outcome[key]) for outcome in outcomes}
