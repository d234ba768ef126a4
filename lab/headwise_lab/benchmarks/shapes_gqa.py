"""shapes-gqa: colour, shape, number, place and relation of things, scored by exact match.

The layout of GQA (Hudson & Manning 2019, arXiv:1902.09506): ``testdev_balanced_questions.json`` with question id ->
{imageId, question, answer, types}, and ``images/``. Answers are read as LLaVA-1.5's script reads them.
"""

from __future__ import annotations

from pathlib import Path

from headwise_lab.benchmarks.base import SUFFIX, Question, in_turns
from headwise_lab.benchmarks.files import Entry, distinct, json_members, members, read_boxes
from headwise_lab.benchmarks.shapes import Shapes, ask_until, seeded, write_boxes
from headwise_lab.metrics.answers import gqa_answer
from headwise_lab.scenes import Example

FILE = "testdev_balanced_questions.json"
STRUCTURE = {"color": "query", "shape": "query", "count": "query", "where": "query", "relation": "verify"}
SEMANTICS = {"color": "attr", "shape": "attr", "count": "obj", "where": "rel", "relation": "rel"}
KINDS = tuple(STRUCTURE)


class ShapesGqa(Shapes):
    """Attributes, counts, places and relations of coloured shapes, by exact match."""

    name = "shapes-gqa"
    least = len(KINDS)

    def write(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions; kinds take turns, and every question has a picture of its own."""
        (folder / "images").mkdir()
        boxes = []
        with members(folder / FILE, "{", "}") as rows:
            for number, example in enumerate(examples(count, seed)):
                name, image, question = f"{number:08d}", f"n{number:06d}", example.question
                example.save_picture(folder / "images" / f"{image}.png")
                kind = question.kind
                types = {"structural": STRUCTURE[kind], "semantic": SEMANTICS[kind], "detailed": kind}
                row = {"imageId": image, "question": question.text, "answer": question.answer, "types": types}
                rows.add(row | {"isBalanced": True}, name)
                boxes.append((name, question))
        write_boxes(folder, boxes)

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions, kinds taking turns; DataError with file and line of what is wrong."""
        boxes = read_boxes(folder)
        path = folder / FILE
        entries = distinct(path, [(entry.key, entry) for entry in json_members(path)])
        questions = []
        for name, entry in entries.items():
            image = entry.picture(folder / "images", entry.text("imageId"), (".jpg", ".png"))
            text, answer, kind = entry.text("question") + SUFFIX, entry.text("answer"), kind_of(entry, "detailed")
            questions.append(Question(name, name, image, text, (answer,), kind, boxes.get(name, ())))
        return in_turns(questions, limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where prediction and answer are the same word once normalised."""
        return float(gqa_answer(prediction) == gqa_answer(question.answers[0]))


def kind_of(entry: Entry, name: str) -> str:
    """The kind of a question of GQA, which stands under ``name`` in its types."""
    types = entry.field("types")
    if not isinstance(types, dict) or not isinstance(types.get(name), str):
        raise entry.wrong(f"'types' should hold the question's kind under {name!r}")
    return str(types[name])


def examples(count: int, seed: int) -> list[Example]:
    """The questions, kinds taking turns; a shorter list is the beginning of a longer one."""
    kinds = len(KINDS)
    return [
        ask_until(KINDS[i % kinds], seeded(ShapesGqa.name, seed, KINDS[i % kinds], i // kinds)) for i in range(count)
    ]
