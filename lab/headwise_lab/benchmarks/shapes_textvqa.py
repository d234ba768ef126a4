"""shapes-textvqa: the word or digit that is written, scored softly against ten people's answers.

The layout of TextVQA 0.5.1 (Singh et al. 2019, arXiv:1904.08920): ``TextVQA_0.5.1_val.json`` with the questions under
"data", and ``train_images/``, where the validation pictures lie too. No OCR tokens are added to the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from headwise_lab.benchmarks.base import PERCENT, SUFFIX, Question, by_kind, in_turns, per_question
from headwise_lab.benchmarks.cases import Case, ask_until, enough, seeded, write_boxes, write_json_lines
from headwise_lab.benchmarks.files import distinct, json_members, read_boxes
from headwise_lab.metrics.answers import soft_accuracy
from headwise_lab.scenes import DIGITS, SIZE, WORDS
from headwise_lab.store.prepared_folder import prepared

FILE = "TextVQA_0.5.1_val.json"
IMAGES = "train_images"
VERSION = 1  # of what prepare writes; raise it when that changes
PEOPLE = 10
ASTRAY = 2  # people at most who answer something else
KIND = "text"
HEAD = '{"dataset_type": "val", "dataset_name": "shapes-textvqa", "dataset_version": "0.5.1", "data": ['


class ShapesTextVqa:
    """Reading a rendered word or digit, by soft VQA accuracy."""

    name = "shapes-textvqa"
    metric = "accuracy"
    scale = PERCENT

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions, every one about a picture of its own, with the answers of ten people."""
        enough(self.name, count, 1)
        stamp = {"benchmark": self.name, "version": VERSION, "count": count, "seed": seed}
        prepared(folder, stamp, lambda workplace: write(workplace, cases(count, seed)))

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions in file order; DataError with file and line of what is wrong."""
        boxes = read_boxes(folder)
        path = folder / FILE
        entries = distinct(path, [(entry.text("question_id"), entry) for entry in json_members(path, "data")])
        questions = []
        for name, entry in entries.items():
            image = entry.picture(folder / IMAGES, entry.text("image_id"), (".jpg", ".png"))
            text, answers = entry.text("question") + SUFFIX, entry.texts("answers", PEOPLE)
            questions.append(Question(name, name, image, text, answers, KIND, boxes.get(name, ())))
        return in_turns(questions, limit)

    def score(self, question: Question, prediction: str) -> float:
        """Soft accuracy against the ten answers."""
        return soft_accuracy(prediction, question.answers)

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Every question is a unit."""
        return per_question(questions, scores)

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """Soft accuracy over all questions."""
        scores = [self.score(q, p) for q, p in zip(questions, predictions, strict=True)]
        return by_kind(self.metric, questions, scores)


def cases(count: int, seed: int) -> list[tuple[Case, tuple[str, ...]]]:
    """(case, ten answers) of every question; a shorter list is the beginning of a longer one."""
    asked = []
    for i in range(count):
        rng = seeded(ShapesTextVqa.name, seed, KIND, i)
        case = ask_until(KIND, rng)
        asked.append((case, _answers(case.question.answer, rng)))
    return asked


def _answers(truth: str, rng: Random) -> tuple[str, ...]:
    """Ten answers, none to two of them something else that could have been written."""
    others = [text for text in (DIGITS if truth in DIGITS else WORDS) if text != truth]
    astray = [rng.choice(others) for _ in range(rng.randint(0, ASTRAY))]
    answers = astray + [truth] * (PEOPLE - len(astray))
    rng.shuffle(answers)
    return tuple(answers)


def write(folder: Path, asked: Sequence[tuple[Case, tuple[str, ...]]]) -> None:
    """Write the question file, the pictures and the boxes."""
    (folder / IMAGES).mkdir()
    rows, boxes = [], []
    for number, (case, answers) in enumerate(asked):
        image, question = f"{number:016x}", case.question
        case.save_picture(folder / IMAGES / f"{image}.png")
        row = {"question_id": number, "image_id": image, "question": question.text, "answers": answers}
        rows.append(("", row | {"image_width": SIZE, "image_height": SIZE, "set_name": "val"}))
        boxes.append((str(number), question))
    write_json_lines(folder / FILE, HEAD, rows, "]}")
    write_boxes(folder, boxes)
