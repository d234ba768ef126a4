"""vizwiz: what blind people asked about their own photographs, unanswerable questions included (Gurari et al. 2018,
arXiv:1802.08218).

``val.json`` and ``val/``. LLaVA-1.5 reports the test split, whose answers only the server knows: ``test.json`` and
``test/``. The files may lie in ``Annotations/``. LLaVA-1.5's prompt allows the answer "Unanswerable".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwise_lab.benchmarks.base import SUFFIX, Question
from headwise_lab.benchmarks.files import Entry, QuestionRow, distinct, json_members
from headwise_lab.benchmarks.official.common import SoftVqa
from headwise_lab.benchmarks.official.reading import first_existing, in_file_order, ten_answers
from headwise_lab.benchmarks.submission import Submission, json_submission
from headwise_lab.metrics.answers import vqa_answer

WAY_OUT = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
KIND = "test"


class VizWiz(SoftVqa):
    """VizWiz-VQA's validation split, by soft VQA accuracy."""

    name = "vizwiz"
    files = "val.json and val/"
    split = "val"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order; DataError with file and line of what is wrong."""
        return in_file_order([_row(folder, self.split, *item) for item in _entries(folder, self.split)], limit)


class VizWizTest(VizWiz):
    """VizWiz-VQA's test split, for its server; the answers are not public."""

    name = "vizwiz-test"
    files = "test.json and test/"
    split = "test"

    def submission(self, questions: Sequence[Question], predictions: Sequence[str]) -> Submission:
        """What eval.ai takes: names of pictures with normalised answers."""
        pairs = zip(questions, predictions, strict=True)
        return json_submission([{"image": q.id, "answer": vqa_answer(p)} for q, p in pairs])


def _entries(folder: Path, split: str) -> list[tuple[str, Entry]]:
    path = first_existing(folder, f"{split}.json", f"Annotations/{split}.json")
    found = distinct(path, [(entry.text("image"), entry) for entry in json_members(path)])
    return list(found.items())


def _row(folder: Path, split: str, name: str, entry: Entry) -> QuestionRow:
    """One question. Every picture has exactly one, so the picture's name is the question's id."""
    text = entry.text("question") + WAY_OUT + SUFFIX
    answers, kind = ((), KIND) if split == "test" else (ten_answers(entry), entry.text("answer_type"))
    return QuestionRow(Question(name, name, folder / split / name, text, answers, kind), entry)
