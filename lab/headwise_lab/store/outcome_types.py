"""Outcomes: one attrs class for each kind of row that is stored beside a record."""

from __future__ import annotations

from typing import ClassVar

import attrs

from headwise_lab.schema.json_object import JsonObject


@attrs.frozen(kw_only=True)
class Outcome(JsonObject):
    """What every outcome has: the id of its question, token or passkey, and a score."""

    lenient: ClassVar[bool] = True

    id: str
    score: float


@attrs.frozen(kw_only=True)
class QuestionOutcome(Outcome):
    """One question of a benchmark: the question, the model's answer, and the visual tokens that were kept."""

    nulls: ClassVar[frozenset[str]] = frozenset({"recall"})

    unit: str | None = None
    """The group of questions that is averaged and paired as one, where that is not the question alone."""
    kind: str | None = None
    image: str | None = None
    """The file of the picture."""
    question: str | None = None
    answers: list[str] = attrs.field(factory=list)
    """Answers that count as right."""
    prediction: str | None = None
    boxes: list[list[float]] = attrs.field(factory=list)
    """Boxes around what the question is about: x0, y0, x1, y1 in pixels of the picture."""
    kept: list[int] = attrs.field(factory=list)
    """Indices of the visual tokens that were kept."""
    stages: list[list[int]] = attrs.field(factory=list)
    """The same after each stage, where there are several."""
    heads: list[int] = attrs.field(factory=list)
    """The heads whose attention chose them."""
    recall: float | None = None
    """Share of the tokens inside the boxes that was kept."""

    @property
    def unit_or_id(self) -> str:
        """The unit, or the question's id where no unit is named."""
        return self.unit or self.id


@attrs.frozen(kw_only=True)
class TokenOutcome(Outcome):
    """One token of a text: the id is its position, the score its loss in nats."""

    right: bool | None = None
    """Whether the model's first choice was this token."""


@attrs.frozen(kw_only=True)
class PasskeyOutcome(TokenOutcome):
    """One passkey: the score is 1 where it was found, else 0."""

    logprob: float | None = None
    """Mean log-probability of the passkey's tokens."""
    length: int | None = None
    """Tokens of the text in which it is hidden."""
    depth: float | None = None
    """Its place in the text: 0 is the beginning, 1 the end."""
    key: str | None = None
    answer: str | None = None
    """The model's answer."""
