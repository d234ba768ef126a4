"""gqa: compositional questions about real scenes, scored by exact match (Hudson & Manning 2019, arXiv:1902.09506).

``testdev_balanced_questions.json`` and ``images/``, here or in ``data/`` or ``questions/``. Answers are read as
LLaVA-1.5's script reads them. The kinds are GQA's structural types: verify, query, choose, logical, compare.
"""

from __future__ import annotations

from pathlib import Path

from headwise_lab.benchmarks.base import SUFFIX, Question
from headwise_lab.benchmarks.files import Entry, QuestionRow, distinct, json_members
from headwise_lab.benchmarks.official.common import Official, answers_of
from headwise_lab.benchmarks.official.reading import first_existing, in_file_order
from headwise_lab.benchmarks.shapes_gqa import FILE, kind_of
from headwise_lab.metrics.answers import gqa_answer


class Gqa(Official):
    """GQA's balanced test-dev split, by exact match."""

    name = "gqa"
    files = f"{FILE} and images/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order; DataError with file and line of what is wrong."""
        path = first_existing(folder, FILE, f"data/{FILE}", f"questions/{FILE}", f"data/questions/{FILE}")
        images = first_existing(folder, "images", "data/images")
        entries = distinct(path, [(entry.key, entry) for entry in json_members(path)])
        return in_file_order([_row(name, entry, images) for name, entry in entries.items()], limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where prediction and answer are the same once normalised."""
        return float(gqa_answer(prediction) == gqa_answer(answers_of(question)[0]))


def _row(name: str, entry: Entry, images: Path) -> QuestionRow:
    kind = kind_of(entry, "structural")
    text, answer = entry.text("question") + SUFFIX, entry.text("answer")
    question = Question(name, name, images / entry.text("imageId"), text, (answer,), kind)
    return QuestionRow(question, entry, (".jpg", ".png"))
