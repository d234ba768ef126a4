"""What the shapes benchmarks share: questions about drawn scenes, made from a seed and held out from training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import ClassVar

from headwise.errors import DataError
from headwise_lab.benchmarks.base import Scored
from headwise_lab.benchmarks.files import BOXES, members
from headwise_lab.scenes import Example, Scene, SceneQuestion, ask, sample_scene
from headwise_lab.store.prepared_folder import prepared

THINGS = (4, 12)  # per scene, as in the demo model's evaluation


class Shapes(Scored):
    """A benchmark that draws its own pictures, so that it needs no data."""

    version: ClassVar[int] = 1
    """Of what ``write`` writes; raise it when that changes."""
    least: ClassVar[int] = 1
    """The fewest questions with which no part of the benchmark is empty."""

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions into ``folder`` unless they are there; DataError where it holds something else."""
        if count < self.least:
            raise DataError(
                f"{self.name} needs at least {self.least} questions to have all its parts, got a count of {count}"
            )
        stamp = {"benchmark": self.name, "version": self.version, "count": count, "seed": seed}
        prepared(folder, stamp, lambda workplace: self.write(workplace, count, seed))

    @abstractmethod
    def write(self, folder: Path, count: int, seed: int) -> None:
        """Write question files, pictures and boxes into an empty folder."""


def seeded(benchmark: str, seed: int, part: str, number: int) -> Random:
    """The random numbers of one question.

    The seeds of the demo model's training begin with "demo-llava", those of its evaluation with "headwise scenes". This
    seed begins with other words, so a benchmark scene is a training scene only by chance. There are more than 10^15
    scenes even of the smallest size.
    """
    return Random(f"headwise benchmark {benchmark} {seed} {part} {number}")


def held_out_scene(rng: Random) -> Scene:
    """A scene of 4 to 12 things."""
    return sample_scene(rng, *THINGS)


def ask_until(kind: str, rng: Random) -> Example:
    """A scene that allows a question of the kind, and that question."""
    while True:
        scene = held_out_scene(rng)
        question = ask(kind, scene, rng)
        if question is not None:
            return Example(scene, question, rng.getrandbits(32))


def write_boxes(folder: Path, asked: Iterable[tuple[str, SceneQuestion]]) -> None:
    """Write the boxes of every question id, one a line, into a file beside the official ones."""
    with members(folder / BOXES, "{", "}") as rows:
        for key, question in asked:
            rows.add(question.boxes, key)
