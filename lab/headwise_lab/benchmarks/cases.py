"""Questions about synthetic scenes before they become files: drawn from seeds, held out from training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

import attrs
from PIL import Image

from headwise.errors import DataError
from headwise_lab import scenes
from headwise_lab.benchmarks.files import BOXES
from headwise_lab.scenes import Scene, draw, sample_scene

THINGS = (4, 12)  # per scene, as in the demo model's evaluation


@attrs.frozen
class Case:
    """A scene, the noise of its picture, and one question about it."""

    scene: Scene
    noise: int
    question: scenes.Question

    def save_picture(self, path: Path) -> None:
        """Write the scene's picture as PNG; the same case always gives the same picture."""
        Image.fromarray(draw(self.scene, self.noise)).save(path, compress_level=1)


def seeded(benchmark: str, seed: int, part: str, number: int) -> Random:
    """The random numbers of one case.

    The seed text starts with words that neither the demo model's training ("demo-llava ...") nor its evaluation
    ("headwise scenes ...") uses, so no benchmark scene is a training scene except by chance, which with more than
    10^15 scenes of the smallest size is out of the question.
    """
    return Random(f"headwise benchmark {benchmark} {seed} {part} {number}")


def held_out_scene(rng: Random) -> Scene:
    """A scene of 4 to 12 things."""
    return sample_scene(rng, *THINGS)


def ask_until(kind: str, rng: Random) -> Case:
    """A scene that allows a question of the kind, and that question."""
    while True:
        scene = held_out_scene(rng)
        question = scenes.ask(kind, scene, rng)
        if question is not None:
            return Case(scene, rng.getrandbits(32), question)


def enough(benchmark: str, count: int, least: int) -> None:
    """Raise DataError where ``count`` questions would leave a part of the benchmark empty."""
    if count < least:
        raise DataError(f"{benchmark} needs at least {least} questions to have all its parts, got a count of {count}")


def write_boxes(folder: Path, asked: Iterable[tuple[str, scenes.Question]]) -> None:
    """Write the sidecar with the boxes of every question id, one a line."""
    write_json_lines(folder / BOXES, "{", ((f"{json.dumps(key)}: ", question.boxes) for key, question in asked), "}")


def write_json_lines(path: Path, head: str, rows: Iterable[tuple[str, object]], tail: str) -> None:
    """Write one JSON document with a row a line, each (key text, value), so that errors can point at a line."""
    lines = ",\n".join(f"{key}{json.dumps(value)}" for key, value in rows)
    path.write_text(f"{head}\n{lines}\n{tail}\n", encoding="utf-8")
