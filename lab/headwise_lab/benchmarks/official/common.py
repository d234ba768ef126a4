"""What the official benchmarks share: where their data come from, how long an answer may be, how figures are made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks.base import PERCENT, Question, by_kind, per_question
from headwise_lab.metrics.answers import soft_accuracy
from headwise_lab.metrics.choices import LETTERS

OPTION_SUFFIX = "\nAnswer with the option's letter from the given choices directly."  # LLaVA-1.5's, for choices
SHORT, LONG = 128, 1024  # tokens LLaVA-1.5 may answer with: model_vqa_loader.py, and its other scripts


@attrs.frozen
class Choice(Question):
    """A question with lettered options; ``columns`` are the cells of its row that a submission repeats."""

    options: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()


class Official(ABC):
    """A benchmark whose files the user has: headwise can read them, and cannot make them."""

    name = "official"
    metric = "accuracy"
    scale = PERCENT
    needs_data = True
    new_tokens = SHORT
    files = "its files"  # what the folder holds, told to whoever gives none

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Raise DataError: there is nothing to make questions of."""
        raise DataError(
            f"{self.name} is read from its official files, which do not come with headwise; give --data a folder with"
            f" {self.files}"
        )

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Every question is a unit."""
        return per_question(questions, scores)

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """The mean score over all questions and per kind."""
        scores = [self.score(q, p) for q, p in zip(questions, predictions, strict=True)]
        return by_kind(self.metric, questions, scores)

    @abstractmethod
    def score(self, question: Question, prediction: str) -> float:
        """What one prediction is worth, 0 to 1; raises DataError where the file gives no answer."""


class SoftVqa(Official):
    """A benchmark that ten people answered: what a prediction is worth depends on how many of them agree."""

    def score(self, question: Question, prediction: str) -> float:
        """Soft accuracy against the ten answers; raises DataError where the file gives none."""
        return soft_accuracy(prediction, answers_of(question))


def answers_of(question: Question) -> tuple[str, ...]:
    """The right answers; raises DataError for a question of a split whose answers only a server knows."""
    if not question.answers:
        raise DataError(
            f"question {question.id} has no answer in its file, so it cannot be scored here; its split is scored by a"
            " server, to which the submission file goes"
        )
    return question.answers


def with_options(text: str, options: Sequence[str], suffix: str = OPTION_SUFFIX) -> str:
    """A question with its options, one a line after their letters, as LLaVA-1.5 asks it."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([text, *lines]) + suffix
