"""mme: fourteen categories, and two questions about each picture: the answer of one is yes, of the other no (Fu et al.
2023, arXiv:2306.13394).

A folder per category, as MME_Benchmark_release_version has them, in either of its two layouts, which shapes-mme reads
as well. The published totals are sums over categories: perception of ten (2000 at most), cognition of four (800).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwise.errors import DataError
from headwise_lab.benchmarks.base import Question, in_turns
from headwise_lab.benchmarks.official.common import Official
from headwise_lab.benchmarks.official.reading import first_existing
from headwise_lab.benchmarks.shapes_mme import PAIR, ShapesMme, read_category

COARSE = ("existence", "count", "position", "color")
FINE = ("posters", "celebrity", "scene", "landmark", "artwork", "OCR")
PERCEPTION = COARSE + FINE
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
RELEASE = "MME_Benchmark_release_version"


class Mme(Official, ShapesMme):
    """MME, by accuracy plus accuracy of both questions of a picture."""

    name = "mme"
    files = "a folder per category, such as existence/ and OCR/"

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions of the categories that are there; pairs take turns and stay whole."""
        root = first_existing(folder, f"{RELEASE}/{RELEASE}", RELEASE, ".")
        there = [root / category for category in PERCEPTION + COGNITION if (root / category).is_dir()]
        questions = [question for category in there for question in read_category(category, {})]
        if not questions:
            raise DataError(f"{folder} holds no question of {self.name}; wanted {self.files}")
        return in_turns(questions, limit, group=PAIR)

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """The figures of shapes-mme, and the two published totals where all their categories were asked."""
        figures = super().metrics(questions, predictions)
        totals = {}
        for name, categories in (("perception", PERCEPTION), ("cognition", COGNITION)):
            if all(f"score/{category}" in figures for category in categories):
                totals[name] = sum(figures[f"score/{category}"] for category in categories)
        return {self.metric: figures[self.metric]} | totals | figures
