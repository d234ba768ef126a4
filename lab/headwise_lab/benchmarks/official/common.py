"""What the official benchmarks share: where their data come from, and how long an answer may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks.base import Question, Scored
from headwise_lab.metrics.answers import soft_accuracy
from headwise_lab.metrics.choices import LETTERS

OPTION_SUFFIX = "\nAnswer with the option's letter from the given choices directly."  # LLaVA-1.5's, for choices
SHORT, LONG = 128, 1024  # tokens LLaVA-1.5 may answer with: model_vqa_loader.py, and its other scripts


@attrs.frozen
class MultipleChoice(Question):
    """A question with lettered options. A submission repeats ``columns``, cells of the question's row."""

    options: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()


class Official(Scored):
    """A benchmark whose files the user has: headwise can read them, and cannot make them."""

    needs_data = True
    new_tokens = SHORT
    files = "its files"  # what the folder should hold, for the error where no folder is given

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Raise DataError: only the official files hold these questions."""
        raise DataError(
            f"{self.name} is read from its official files, which do not come with headwise; give --data a folder with"
            f" {self.files}"
        )


class SoftVqa(Official):
    """A benchmark that ten people answered: the score depends on how many of them agree with the prediction."""

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
    """A question and its options, each on a line of its own after its letter, as LLaVA-1.5 asks it."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([text, *lines]) + suffix
