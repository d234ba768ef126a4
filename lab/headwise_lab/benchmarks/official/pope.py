"""pope: is there such a thing in the picture? Asked against random, popular and adversarial absences (Li et al. 2023,
arXiv:2305.10355).

``coco_pope_{random,popular,adversarial}.json`` with one question a line, here or in ``coco/``, and ``val2014/``.
Predictions are read as LLaVA-1.5 reads them and scored as those of shapes-pope.
"""

from __future__ import annotations

from pathlib import Path

from headwise_lab.benchmarks.base import SUFFIX, Question, in_turns
from headwise_lab.benchmarks.files import distinct, json_lines
from headwise_lab.benchmarks.official.common import Official
from headwise_lab.benchmarks.official.reading import Row, place
from headwise_lab.benchmarks.shapes_pope import SUBSETS, ShapesPope
from headwise_lab.metrics.answers import NO, YES

FILE = "coco_pope_{}.json"


class Pope(Official, ShapesPope):
    """POPE on COCO, by accuracy; F1, precision, recall and yes-ratio beside it."""

    name = "pope"
    files = f"{FILE.format('random')} and its popular and adversarial sisters, and val2014/"

    score = ShapesPope.score
    metrics = ShapesPope.metrics

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions of the three files, subsets taking turns; DataError with file and line of what is wrong."""
        rows = {row.question.id: row for subset in SUBSETS for row in _rows(folder, subset)}
        return [rows[question.id].ready() for question in in_turns([row.question for row in rows.values()], limit)]


def _rows(folder: Path, subset: str) -> list[Row]:
    file = FILE.format(subset)
    path, images = place(folder, file, f"coco/{file}", f"output/coco/{file}"), place(folder, "val2014", "images")
    entries = distinct(path, [(f"{subset}/{entry.text('question_id')}", entry) for entry in json_lines(path)])
    rows = []
    for name, entry in entries.items():
        label = entry.text("label")
        if label not in (YES, NO):
            raise entry.wrong(f"'label' should be yes or no, found {label!r}")
        text, image = entry.text("text") + SUFFIX, images / entry.text("image")
        rows.append(Row(Question(name, name, image, text, (label,), subset), entry))
    return rows
