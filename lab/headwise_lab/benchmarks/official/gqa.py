"""gqa: compositional questions about real scenes, scored by exact match (Hudson & Manning 2019, arXiv:1902.09506).

``testdev_balanced_questions.json`` and ``images/``, here or in ``data/`` or ``questions/``; answers are read as
LLaVA-1.5's script reads them. The kinds are GQA's structural types: verify, query, choose, logical, compare.
"""

from __future__ import annotations

from pathlib import Path

from headwise_lab.benchmarks.base import SUFFIX, Question
from headwise_lab.benchmarks.files import Entry, distinct, json_members
from headwise_lab.benchmarks.official.common import Official, answers_of
from headwise_lab.benchmarks.official.reading import Row, in_file_order, place
from headwise_lab.metrics.answers import gqa_answer

FILE = "testdev_balanced_questions.json"


class Gqa(Official):
    """GQA's balanced test-dev split, by exact match."""

    name = "gqa"
    files = f"{FILE} and images/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order; DataError with file and line of what is wrong."""
        path = place(folder, FILE, f"data/{FILE}", f"questions/{FILE}", f"data/questions/{FILE}")
        images = place(folder, "images", "data/images")
        entries = distinct(path, [(entry.key, entry) for entry in json_members(path)])
        return in_file_order([_row(name, entry, images) for name, entry in entries.items()], limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where prediction and answer are the same once normalised."""
        return float(gqa_answer(prediction) == gqa_answer(answers_of(question)[0]))


def _row(name: str, entry: Entry, images: Path) -> Row:
    types = entry.field("types")
    if not isinstance(types, dict) or not isinstance(types.get("structural"), str):
        raise entry.wrong("'types' should hold the question's kind under 'structural'")
    text, answer = entry.text("question") + SUFFIX, entry.text("answer")
    question = Question(name, name, images / entry.text("imageId"), text, (answer,), types["structural"])
    return Row(question, entry, (".jpg", ".png"))
