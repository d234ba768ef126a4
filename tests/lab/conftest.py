"""A tiny random LLaVA on disk and a benchmark of noise, made once for the tests of the lab's engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

CELL = 12  # pixels per visual token of the demo model's tower
QUESTIONS = (
    "What color is the circle in the image ?",
    "How many red objects are in the image ?",
    "Is there a blue star in the image ? in the image ?",
    "Where is the green square ?",
)


class Toy:
    """Questions about noise, in pairs; one is worth a half, a quarter or nothing by its number."""

    name = "toy"
    metric = "points"
    scale = 10.0

    def __init__(self, folder: Path, count: int = 6) -> None:
        from headwise_lab.benchmarks import SUFFIX, Question

        noise = np.random.default_rng(3)
        self.questions = []
        for i in range(count):
            image = folder / f"{i}.png"
            Image.fromarray(noise.integers(0, 256, (144, 144, 3), dtype=np.uint8)).save(image)
            box = (CELL * i, 0.0, CELL * (i + 2), CELL)  # tokens i and i + 1 of the first row
            text = QUESTIONS[i % len(QUESTIONS)] + SUFFIX
            boxes = () if i == 1 else (box,)
            self.questions.append(Question(str(i), str(i // 2), image, text, ("red",), f"kind{i % 2}", boxes))

    def prepare(self, folder: Path, count: int, seed: int) -> None: ...

    def load(self, folder: Path, limit: int | None):
        return self.questions[:limit]

    def score(self, question, prediction: str) -> float:
        return (0.5, 0.25, 0.0)[int(question.id) % 3]

    def units(self, questions: Sequence, scores: Sequence[float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for question, score in zip(questions, scores, strict=True):
            found[question.unit] = found.get(question.unit, 0.0) + score
        return found

    def metrics(self, questions: Sequence, predictions: Sequence[str]) -> dict[str, float]:
        return {"answered": float(len(predictions))}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """Three decoder layers, 144 visual tokens, and weights so large that attention is far from flat."""
    return made(tmp_path_factory.mktemp("models") / "tiny", layers=3)


def made(folder: Path, layers: int) -> Path:
    """A random demo-llava of some depth, written into a folder."""
    from headwise_lab.demo.llava.model import build
    from headwise_lab.demo.llava.tokenizer import build_processor

    model = build(layers, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.15, generator=generator)
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    from headwise_lab.models.load import load_model

    return load_model(str(tiny_folder))


@pytest.fixture(scope="session")
def deeper(tmp_path_factory):
    """As deep as a method of three stages needs it."""
    from headwise_lab.models.load import load_model

    return load_model(str(made(tmp_path_factory.mktemp("models") / "deeper", layers=6)))


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"))
