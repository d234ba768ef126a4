"""vqav2: open questions about COCO pictures, scored softly against ten people's answers (Goyal et al. 2017,
arXiv:1612.00837).

``v2_OpenEnded_mscoco_val2014_questions.json``, ``v2_mscoco_val2014_annotations.json`` and ``val2014/``. Papers report
the test-dev split, whose answers only the server knows: ``v2_OpenEnded_mscoco_test-dev2015_questions.json`` and
``test2015/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwise_lab.benchmarks.base import SUFFIX, Question
from headwise_lab.benchmarks.files import Entry, QuestionRow, distinct, json_members
from headwise_lab.benchmarks.official.common import SoftVqa
from headwise_lab.benchmarks.official.reading import in_file_order, ten_answers
from headwise_lab.benchmarks.submission import Submission, json_submission
from headwise_lab.metrics.answers import vqa_answer

QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
KINDS = ("yes/no", "number", "other")
KIND = "test"  # of questions without an answer, which would tell their kind


class Vqav2(SoftVqa):
    """VQAv2's validation split, by soft VQA accuracy."""

    name = "vqav2"
    files = f"{QUESTIONS.format('val2014')}, {ANNOTATIONS} and val2014/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order; DataError with file and line of what is wrong."""
        questions = _questions(folder, "val2014")
        path = folder / ANNOTATIONS
        listed = json_members(path, "annotations")
        annotations = distinct(path, [(entry.text("question_id"), entry) for entry in listed])
        rows = []
        for name, entry in questions.items():
            if name not in annotations:
                raise entry.wrong(f"question {name!r} has no annotation in {path}")
            question = _asked(name, entry, folder / "val2014", annotations[name])
            rows.append(QuestionRow(question, entry, (".jpg", ".png")))
        return in_file_order(rows, limit)


class Vqav2TestDev(SoftVqa):
    """VQAv2's test-dev split, for its server; the answers are not public."""

    name = "vqav2-test-dev"
    files = f"{QUESTIONS.format('test-dev2015')} and test2015/"

    def __init__(self) -> None:
        self.others: tuple[str, ...] = ()
        """Ids of the whole test split. Most are not asked, but the server wants an answer to each of them."""

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order. Where the file of the whole test split is there, its ids go to ``others``."""
        questions = _questions(folder, "test-dev2015")
        whole = folder / QUESTIONS.format("test2015")
        self.others = tuple(_questions(folder, "test2015")) if whole.is_file() else tuple(questions)
        rows = [
            QuestionRow(_asked(name, entry, folder / "test2015"), entry, (".jpg", ".png"))
            for name, entry in questions.items()
        ]
        return in_file_order(rows, limit)

    def submission(self, questions: Sequence[Question], predictions: Sequence[str]) -> Submission:
        """What eval.ai takes: question ids with normalised answers, "" for questions that were not asked."""
        said = {q.id: vqa_answer(p) for q, p in zip(questions, predictions, strict=True)}
        ids = dict.fromkeys([*said, *self.others])
        return json_submission([{"question_id": int(name), "answer": said.get(name, "")} for name in ids])


def _questions(folder: Path, split: str) -> dict[str, Entry]:
    path = folder / QUESTIONS.format(split)
    return distinct(path, [(entry.number("question_id"), entry) for entry in json_members(path, "questions")])


def _asked(name: str, entry: Entry, images: Path, annotation: Entry | None = None) -> Question:
    number = int(entry.number("image_id"))
    image = images / f"COCO_{images.name}_{number:012d}"
    answers, kind = ((), KIND) if annotation is None else (ten_answers(annotation), annotation.text("answer_type"))
    if annotation is not None and kind not in KINDS:
        raise annotation.wrong(f"'answer_type' should be one of {', '.join(KINDS)}, found {kind!r}")
    return Question(name, name, image, entry.text("question") + SUFFIX, answers, kind)
