"""Each strategy of ``headwise ppl`` and ``headwise needle`` compared with the first one, by the rule of the project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from headwise.errors import DataError
from headwise_lab.stats.differences import Difference, paired, paired_losses
from headwise_lab.stats.means import perplexity
from headwise_lab.stats.rule import corrected
from headwise_lab.store.outcome_types import Outcome, PasskeyOutcome, TokenOutcome


@attrs.frozen
class TextChange:
    """Differences of a strategy to the first on one text: loss in nats (below 0 is better), share of right tokens."""

    loss: Difference
    right: Difference

    @property
    def ratio(self) -> tuple[float, float]:
        """Its perplexity over that of the first (exp of the difference of losses), with the standard error."""
        return perplexity(self.loss.value, self.loss.se)


@attrs.frozen
class PromptChange:
    """Differences of a strategy to the first on the same prompts: passkeys found, log-probability of the passkeys."""

    found: Difference
    logprob: Difference


def text_changes(first: Sequence[TokenOutcome], others: Sequence[Sequence[TokenOutcome]]) -> list[TextChange]:
    """The differences of all others to the first, corrected together; raises DataError where two share no token."""
    losses = [paired_losses(_scores(one), _scores(first)) for one in others]
    right = [paired_losses(_right(one), _right(first), lower_is_better=False) for one in others]
    return [TextChange(*pair) for pair in _together(losses, right)]


def prompt_changes(first: Sequence[PasskeyOutcome], others: Sequence[Sequence[PasskeyOutcome]]) -> list[PromptChange]:
    """The differences of all others to the first, corrected together; raises DataError where two share no prompt."""
    found = [paired(_scores(one), _scores(first)) for one in others]
    logprob = [paired(_logprobs(one), _logprobs(first)) for one in others]
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


def _scores(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {outcome.id: float(outcome.score) for outcome in outcomes}


def _right(outcomes: Sequence[TokenOutcome]) -> dict[str, float]:
    return {outcome.id: float(bool(outcome.right)) for outcome in outcomes}


def _logprobs(outcomes: Sequence[PasskeyOutcome]) -> dict[str, float]:
    return {outcome.id: outcome.logprob for outcome in outcomes if outcome.logprob is not None}
