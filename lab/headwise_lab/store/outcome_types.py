"""What an outcome says: one attrs class for each kind of row that is stored beside a record."""

from __future__ import annotations

from typing import ClassVar

import attrs

from headwise_lab.schema.json_object import JsonObject


@attrs.frozen(kw_only=True)
class Outcome(JsonObject):
    """What every outcome says: of which question, token or passkey it is, and what it is worth."""

    lenient: ClassVar[bool] = True

    id: str
    score: float


@attrs.frozen(kw_only=True)
class QuestionOutcome(Outcome):
    """One question of a benchmark: what was asked, what the model said, and what it kept of the picture."""

    nulls: ClassVar[frozenset[str]] = frozenset({"recall"})

    unit: str | None = None
    """The unit it is averaged and paired in, where that is not the question alone."""
    kind: str | None = None
    image: str | None = None
    """The file of the picture."""
    question: str | None = None
    answers: list[str] = attrs.field(factory=list)
    """What counts as right."""
    prediction: str | None = None
    boxes: list[list[float]] = attrs.field(factory=list)
    """What the question is about: x0, y0, x1, y1 in pixels of the picture."""
    kept: list[int] = attrs.field(factory=list)
    """Places of the visual tokens that are left."""
    heads: list[int] = attrs.field(factory=list)
    """The heads that chose them."""
    recall: float | None = None
    """Share of the tokens in boxes that is kept."""

    @property
    def unit_or_id(self) -> str:
        """The unit, which is the question itself where none is named."""
        return self.unit or self.id


@attrs.frozen(kw_only=True)
class TokenOutcome(Outcome):
    """One token of a text: its place, and as score its loss in nats."""

    right: bool | None = None
    """Whether the model's first choice was this token."""


@attrs.frozen(kw_only=True)
class PasskeyOutcome(TokenOutcome):
    """One passkey: its score is 1 where it was found."""

    logprob: float | None = None
    """Mean log-probability of the passkey's tokens."""
    length: int | None = None
    """Tokens of the text it is hidden in."""
    depth: float | None = None
    """Where: 0 is the beginning."""
    key: str | None = None
    answer: str | None = None
    """What the model said."""
