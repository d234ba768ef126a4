"""shapes-textvqa: the word or digit that is written, scored softly against ten people's answers.

The layout of TextVQA 0.5.1 (Singh et al. 2019, arXiv:1904.08920): ``TextVQA_0.5.1_val.json`` with the questions under
"data", and ``train_images/``, which also holds the validation pictures. No OCR tokens are added to the prompt.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from headwise_lab.benchmarks.base import SUFFIX, Question, in_turns
from headwise_lab.benchmarks.files import distinct, json_members, members, read_boxes
from headwise_lab.benchmarks.shapes import Shapes, ask_until, seeded, write_boxes
from headwise_lab.metrics.answers import soft_accuracy
from headwise_lab.scenes import DIGITS, SIZE, WORDS, Example

FILE = "TextVQA_0.5.1_val.json"
IMAGES = "train_images"
PEOPLE = 10
ASTRAY = 2  # people at most who answer something else
KIND = "text"
HEAD = '{"dataset_type": "val", "dataset_name": "shapes-textvqa", "dataset_version": "0.5.1", "data": ['


class ShapesTextVqa(Shapes):
    """Reading a rendered word or digit, by soft VQA accuracy."""

    name = "shapes-textvqa"

    def write(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions, every one with a picture of its own and the answers of ten people."""
        (folder / IMAGES).mkdir()
        boxes = []
        with members(folder / FILE, HEAD, "]}") as rows:
            for number, (example, answers) in enumerate(examples(count, seed)):
                image, question = f"{number:016x}", example.question
                example.save_picture(folder / IMAGES / f"{image}.png")
                row = {"question_id": number, "image_id": image, "question": question.text, "answers": answers}
                rows.add(row | {"image_width": SIZE, "image_height": SIZE, "set_name": "val"})
                boxes.append((str(number), question))
        write_boxes(folder, boxes)

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


def examples(count: int, seed: int) -> list[tuple[Example, tuple[str, ...]]]:
    """Every question with its ten answers; a shorter list is the beginning of a longer one."""
    asked = []
    for i in range(count):
        rng = seeded(ShapesTextVqa.name, seed, KIND, i)
        example = ask_until(KIND, rng)
        asked.append((example, _answers(example.question.answer, rng)))
    return asked


def _answers(truth: str, rng: Random) -> tuple[str, ...]:
    """Ten answers; up to two of them are another word or digit of the world."""
    others = [text for text in (DIGITS if truth in DIGITS else WORDS) if text != truth]
    astray = [rng.choice(others) for _ in range(rng.randint(0, ASTRAY))]
    answers = astray + [truth] * (PEOPLE - len(astray))
    rng.shuffle(answers)
    return tuple(answers)
