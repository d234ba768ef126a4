"""Random scenes, and held-out examples of one question each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headwise_lab.scenes.drawing import draw
from headwise_lab.scenes.questions import KINDS, SceneQuestion, ask
from headwise_lab.scenes.scene import Label, Scene, Thing
from headwise_lab.scenes.world import COLORS, DIGITS, GRID, SHAPES, TOKENS, WORDS, position

WRITTEN = 0.6  # chance that a scene has a word, and that it has a digit
TOUCHING = 0.4  # chance that a thing moves next to an earlier one
STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def sample_scene(rng: Random, low: int = 4, high: int = 12) -> Scene:
    """A scene of ``low`` to ``high`` things. They have only 4 to 8 of the colours and shapes, so that these repeat."""
    count = rng.randint(low, high)
    colors = rng.sample(COLORS, rng.randint(4, 8))
    shapes = rng.sample(SHAPES, rng.randint(4, 8))
    labels = []
    if rng.random() < WRITTEN:
        left = rng.randrange(GRID) * GRID + rng.randrange(GRID - 1)
        labels.append(Label("word", rng.choice(WORDS), (left, left + 1)))
    taken = {cell for label in labels for cell in label.cells}
    cells = rng.sample([cell for cell in range(TOKENS) if cell not in taken], count + 1)
    spare = cells[count]
    if rng.random() < WRITTEN:
        labels.append(Label("digit", rng.choice(DIGITS), (spare,)))
    for i in range(1, count):
        if rng.random() < TOUCHING:
            beside = _neighbour(rng, cells[rng.randrange(i)])
            if beside is not None and beside not in taken and beside not in cells:
                cells[i] = beside
    things = tuple(Thing(rng.choice(shapes), rng.choice(colors), cell) for cell in cells[:count])
    return Scene(things, tuple(labels))


def _neighbour(rng: Random, cell: int) -> int | None:
    row, column = position(cell)
    down, right = rng.choice(STEPS)
    inside = 0 <= row + down < GRID and 0 <= column + right < GRID
    return (row + down) * GRID + column + right if inside else None


@attrs.frozen
class Example:
    """One question about one scene; ``seed`` fixes the picture's noise."""

    scene: Scene
    question: SceneQuestion
    seed: int

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The picture, (144, 144, 3) uint8; always the same for the same example."""
        return draw(self.scene, self.seed)

    def save_picture(self, path: Path) -> None:
        """Write the picture as PNG."""
        Image.fromarray(self.pixels).save(path, compress_level=1)


def held_out(
    seed: int, per_kind: int, kinds: Sequence[str] = KINDS, *, low: int = 4, high: int = 12
) -> Iterator[Example]:
    """``per_kind`` examples of each kind, kind after kind.

    Example ``i`` of a kind depends on ``(seed, kind, i)`` alone, so a shorter run is a prefix of a longer one.
    """
    for kind in kinds:
        for i in range(per_kind):
            rng = Random(f"headwise scenes {seed} {kind} {i}")
            question = None
            while question is None:
                scene = sample_scene(rng, low, high)
                question = ask(kind, scene, rng)
            yield Example(scene, question, rng.getrandbits(32))
