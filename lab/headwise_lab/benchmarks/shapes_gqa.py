"""shapes-gqa: colour, shape, number, place and relation of things, scored by exact match.

The layout of GQA (Hudson & Manning 2019, arXiv:1902.09506): ``testdev_balanced_questions.json`` with question id ->
{imageId, question, answer, types}, and ``images/``; answers are read as LLaVA-1.5's script reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwise_lab.benchmarks.base import PERCENT, SUFFIX, Question, by_kind, in_turns, per_question
from headwise_lab.benchmarks.cases import Case, ask_until, enough, seeded, write_boxes, write_json_lines
from headwise_lab.benchmarks.files import Entry, distinct, json_members, read_boxes
from headwise_lab.metrics.answers import gqa_answer
from headwise_lab.store.prepared_folder import prepared

FILE = "testdev_balanced_questions.json"
VERSION = 1  # of what prepare writes; raise it when that changes
STRUCTURE = {"color": "query", "shape": "query", "count": "query", "where": "query", "relation": "verify"}
SEMANTICS = {"color": "attr", "shape": "attr", "count": "obj", "where": "rel", "relation": "rel"}
KINDS = tuple(STRUCTURE)


class ShapesGqa:
    """Attributes, counts, places and relations of coloured shapes, by exact match."""

    name = "shapes-gqa"
    metric = "accuracy"
    scale = PERCENT

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions, kinds taking turns, every one about a picture of its own."""
        enough(self.name, count, len(KINDS))
        stamp = {"benchmark": self.name, "version": VERSION, "count": count, "seed": seed}
        prepared(folder, stamp, lambda workplace: write(workplace, cases(count, seed)))

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions, kinds taking turns; DataError with file and line of what is wrong."""
        boxes = read_boxes(folder)
        path = folder / FILE
        entries = distinct(path, [(entry.key, entry) for entry in json_members(path)])
        questions = []
        for name, entry in entries.items():
            image = entry.picture(folder / "images", entry.text("imageId"), (".jpg", ".png"))
            text, answer = entry.text("question") + SUFFIX, entry.text("answer")
            questions.append(Question(name, name, image, text, (answer,), _kind(entry), boxes.get(name, ())))
        return in_turns(questions, limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where prediction and answer are the same word once normalised."""
        return float(gqa_answer(prediction) == gqa_answer(question.answers[0]))

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Every question is a unit."""
        return per_question(questions, scores)

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """Accuracy over all questions and per kind."""
        scores = [self.score(q, p) for q, p in zip(questions, predictions, strict=True)]
        return by_kind(self.metric, questions, scores)


def _kind(entry: Entry) -> str:
    types = entry.field("types")
    if not isinstance(types, dict) or not isinstance(types.get("detailed"), str):
        raise entry.wrong("'types' should hold the question's kind under 'detailed'")
    return str(types["detailed"])


def cases(count: int, seed: int) -> list[Case]:
    """The questions, kinds taking turns; a shorter list is the beginning of a longer one."""
    kinds = len(KINDS)
    return [
        ask_until(KINDS[i % kinds], seeded(ShapesGqa.name, seed, KINDS[i % kinds], i // kinds)) for i in range(count)
    ]


def write(folder: Path, asked: Sequence[Case]) -> None:
    """Write the question file, the pictures and the boxes."""
    (folder / "images").mkdir()
    rows, boxes = [], []
    for number, case in enumerate(asked):
        name, image, question = f"{number:08d}", f"n{number:06d}", case.question
        case.save_picture(folder / "images" / f"{image}.png")
        kind = question.kind
        types = {"structural": STRUCTURE[kind], "semantic": SEMANTICS[kind], "detailed": kind}
        row = {"imageId": image, "question": question.text, "answer": question.answer, "types": types}
        rows.append((f'"{name}": ', row | {"isBalanced": True}))
        boxes.append((name, question))
    write_json_lines(folder / FILE, "{", rows, "}")
    write_boxes(folder, boxes)
