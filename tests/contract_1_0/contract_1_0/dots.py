"""dots-1-0: how many dots are in the picture? It draws its own pictures, so that it needs no data."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw

from headwise_lab.benchmarks.base import SUFFIX, Question, Scored, in_turns
from headwise_lab.store.prepared_folder import prepared

FILE = "questions.json"
SIDE, RADIUS, MOST = 96, 6, 4
WORDS = ("zero", "one", "two", "three", "four")


class Dots(Scored):
    """Dots on white, up to four, and how many there are; answers may be digits or words."""

    name = "dots-1-0"
    version = 1
    """Of what ``prepare`` writes; raise it when that changes, so that folders of older versions are not mixed in."""

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions into ``folder`` unless they are there; DataError where it holds something else."""
        stamp = {"benchmark": self.name, "version": self.version, "count": count, "seed": seed}
        prepared(folder, stamp, lambda workplace: _write(workplace, count, seed))

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions, pictures with many and with few dots taking turns."""
        rows = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return in_turns([_question(folder, name, dots) for name, dots in rows.items()], limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where the first word of the prediction is the number, as a digit or spelled out."""
        said = prediction.lower().strip().strip(".").split()
        return float(bool(said) and said[0] in question.answers)


def _write(folder: Path, count: int, seed: int) -> None:
    """Draw every picture from its own random numbers, so that a smaller count is the beginning of a larger one."""
    rows = {}
    for number in range(count):
        rng, name = Random(f"counting {seed} {number}"), f"{number:05d}"
        rows[name] = number % MOST + 1
        _draw(rows[name], rng).save(folder / f"{name}.png")
    (folder / FILE).write_text(json.dumps(rows), encoding="utf-8")


def _draw(dots: int, rng: Random) -> Image.Image:
    """Dots in different quarters of the picture, so that none covers another."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    for quarter in rng.sample(range(4), dots):
        left, top = SIDE // 2 * (quarter % 2), SIDE // 2 * (quarter // 2)
        x, y = (side + rng.randint(RADIUS, SIDE // 2 - RADIUS - 1) for side in (left, top))
        ImageDraw.Draw(picture).ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill="black")
    return picture


def _question(folder: Path, name: str, dots: int) -> Question:
    text = f"How many dots are in the image?{SUFFIX}"
    return Question(name, name, folder / f"{name}.png", text, (str(dots), WORDS[dots]), "few" if dots < 3 else "many")
