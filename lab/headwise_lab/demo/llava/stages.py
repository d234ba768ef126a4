"""The training plan as data: kinds and numbers of questions, how crowded scenes are, and learning rates."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen
class TrainingStage:
    """One stage of training. Every stage begins with new optimizers, without momentum."""

    name: str
    seed: int  # of this stage's scenes
    images: int
    low: int  # fewest things in a scene
    high: tuple[int, int]  # most things, at the stage's start and end
    lr: tuple[float, float]  # Muon's, at start and end; AdamW's is 0.6 of it
    aux: float  # weight of the loss for each image token's form and colour
    place: float  # weight of the loss for each image token's row and column
    mix: Mapping[str, int] = attrs.field(factory=dict)  # questions per image by kind; empty: image tokens only
    batch: int = 8  # images per step
    warmup: int = 30  # steps
    layers: tuple[int, ...] | None = None  # new language layers, by old index; a repeat adds nothing at first
    stop: float = 0.0  # weight of the loss for </s> after the answer

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole stage."""
        return -(-self.images // self.batch)


FIRST_LAYERS = 6
CROWDED = {"exist": 4, "color": 2, "shape": 2, "text": 2, "count": 7, "where": 4, "relation": 9}
PLAN = (
    # No questions yet: the model learns what is in each cell, and where the cell is.
    TrainingStage("see", 101, 8_000, 6, (16, 16), (0.004, 0.003), aux=1.0, place=0.5, batch=32, warmup=50),
    # Few things, all kinds of question, until the model finds a thing by one property and reads another.
    TrainingStage(
        "look-up",
        102,
        3_500,
        2,
        (3, 6),
        (0.004, 0.004),
        aux=0.3,
        place=0.09,
        warmup=80,
        mix={"exist": 5, "color": 4, "shape": 4, "text": 6, "count": 4, "where": 4, "relation": 3},
    ),
    TrainingStage(
        "more-things",
        103,
        5_300,
        3,
        (6, 12),
        (0.004, 0.004),
        aux=0.15,
        place=0.045,
        mix={"exist": 6, "color": 3, "shape": 3, "text": 3, "count": 6, "where": 4, "relation": 5},
    ),
    TrainingStage(
        "crowded",
        104,
        7_600,
        4,
        (10, 12),
        (0.004, 0.003),
        aux=0.2,
        place=0.1,
        mix={"exist": 4, "color": 2, "shape": 2, "text": 1, "count": 6, "where": 6, "relation": 7},
    ),
    # Relations need two look-ups and a comparison, so they get most of the questions, in scenes with few things.
    TrainingStage(
        "relations",
        105,
        7_600,
        2,
        (3, 8),
        (0.003, 0.003),
        aux=0.2,
        place=0.1,
        warmup=60,
        mix={"exist": 3, "color": 1, "shape": 1, "text": 1, "count": 3, "where": 5, "relation": 14},
    ),
    # Layers double only after the skills exist, because half of the layers learn them as fast at half of the cost.
    TrainingStage(
        "grown",
        106,
        8_000,
        4,
        (10, 12),
        (0.003, 0.0001),
        aux=0.2,
        place=0.1,
        warmup=50,
        mix=CROWDED,
        layers=(0, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5),
    ),
    TrainingStage(
        "stop", 107, 1_500, 4, (12, 12), (0.0015, 0.00005), aux=0.1, place=0.05, warmup=5, mix=CROWDED, stop=1.0
    ),
)
