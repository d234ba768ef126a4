"""pope: is there such a thing in the picture? Absent things are random, popular or adversarial (Li et al. 2023,
arXiv:2305.10355).

``coco_pope_{random,popular,adversarial}.json`` with one question a line, here or in ``coco/``, and ``val2014/``.
Predictions are read as LLaVA-1.5 reads them and scored as those of shapes-pope.
"""

from __future__ import annotations

from pathlib import Path

from headwise_lab.benchmarks.base import Question, in_turns
from headwise_lab.benchmarks.official.common import Official
from headwise_lab.benchmarks.official.reading import first_existing
from headwise_lab.benchmarks.shapes_pope import FILE, SUBSETS, ShapesPope, read_subset


class Pope(Official, ShapesPope):
    """POPE on COCO, by accuracy; F1, precision, recall and yes-ratio beside it."""

    name = "pope"
    files = f"{FILE.format('random')} and its popular and adversarial sisters, and val2014/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions of the three files, subsets taking turns; DataError with file and line of what is wrong."""
        rows = {row.question.id: row for subset in SUBSETS for row in read_subset(*_paths(folder, subset), subset)}
        return [rows[question.id].ready() for question in in_turns([row.question for row in rows.values()], limit)]


def _paths(folder: Path, subset: str) -> tuple[Path, Path]:
    """A subset's file, and the folder of its pictures."""
    file, images = FILE.format(subset), first_existing(folder, "val2014", "images")
    return first_existing(folder, file, f"coco/{file}", f"output/coco/{file}"), images
