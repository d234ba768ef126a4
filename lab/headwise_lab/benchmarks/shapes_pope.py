"""shapes-pope: is there such a thing in the picture? Half of the answers are yes.

The layout, the three kinds of absent things and the figures of POPE (Li et al. 2023, arXiv:2305.10355), as LLaVA-1.5
evaluates it: ``coco_pope_{random,popular,adversarial}.json`` with one question a line, and ``images/``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import attrs

from headwise_lab.benchmarks.base import PERCENT, SUFFIX, Question, in_turns, mean
from headwise_lab.benchmarks.files import QuestionRow, distinct, json_lines, read_boxes
from headwise_lab.benchmarks.shapes import Shapes, held_out_scene, seeded, write_boxes
from headwise_lab.metrics.answers import NO, YES, pope_yes_no
from headwise_lab.metrics.yes_no import FIGURES, yes_no_figures
from headwise_lab.scenes import COLORS, SHAPES, Example, Scene, SceneQuestion

FILE = "coco_pope_{}.json"
SUBSETS = ("random", "popular", "adversarial")
POPULAR = 16  # so many of the 64 pairs count as frequent

Pair = tuple[str, str]  # shape, colour
PAIRS: tuple[Pair, ...] = tuple((shape, color) for shape in SHAPES for color in COLORS)


class ShapesPope(Shapes):
    """Existence of a coloured shape, yes or no, against random, popular and adversarial absences."""

    name = "shapes-pope"
    least = len(SUBSETS)

    def write(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions, a third to each subset; every question has a picture of its own."""
        (folder / "images").mkdir()
        lines: dict[str, list[str]] = {subset: [] for subset in SUBSETS}
        boxes = []
        for number, (subset, example) in enumerate(examples(count, seed)):
            image, name, question = f"SHAPES_{number:012d}.png", len(lines[subset]) + 1, example.question
            example.save_picture(folder / "images" / image)
            row = {"question_id": name, "image": image, "text": question.text, "label": question.answer}
            lines[subset].append(json.dumps(row) + "\n")
            boxes.append((f"{subset}/{name}", question))
        for subset, rows in lines.items():
            (folder / FILE.format(subset)).write_text("".join(rows), encoding="utf-8")
        write_boxes(folder, boxes)

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions of the three files, subsets taking turns; DataError with file and line of what is wrong."""
        boxes = read_boxes(folder)
        paths = {subset: folder / FILE.format(subset) for subset in SUBSETS}
        found = [row.ready() for subset in SUBSETS for row in read_subset(paths[subset], folder / "images", subset)]
        return in_turns([attrs.evolve(question, boxes=boxes.get(question.id, ())) for question in found], limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where POPE's reading of the prediction is the label."""
        return float(pope_yes_no(prediction) == question.answers[0])

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """Accuracy over all; accuracy, precision, recall, F1 and yes-ratio per subset and their means over subsets."""
        subsets = {subset: figures for subset in SUBSETS if (figures := _figures(subset, questions, predictions))}
        means = {name: PERCENT * mean([figures[name] for figures in subsets.values()]) for name in FIGURES}
        parts = {f"{name}/{s}": PERCENT * figures[name] for s, figures in subsets.items() for name in FIGURES}
        return means | {"accuracy": PERCENT * mean(self.scores(questions, predictions))} | parts


def _figures(subset: str, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
    """POPE's figures of one subset; empty where it has no question."""
    chosen = [(q, p) for q, p in zip(questions, predictions, strict=True) if q.kind == subset]
    said, truth = [pope_yes_no(p) for _, p in chosen], [q.answers[0] for q, _ in chosen]
    return yes_no_figures(said, truth) if chosen else {}


def read_subset(path: Path, images: Path, subset: str) -> list[QuestionRow]:
    """The questions of one subset's file; their pictures lie in ``images``."""
    entries = distinct(path, [(f"{subset}/{entry.text('question_id')}", entry) for entry in json_lines(path)])
    rows = []
    for name, entry in entries.items():
        label = entry.text("label")
        if label not in (YES, NO):
            raise entry.wrong(f"'label' should be yes or no, found {label!r}")
        text, image = entry.text("text") + SUFFIX, images / entry.text("image")
        rows.append(QuestionRow(Question(name, name, image, text, (label,), subset), entry))
    return rows


def examples(count: int, seed: int) -> list[tuple[str, Example]]:
    """Every question with its subset: subsets take turns, and within each, yes and no."""
    rngs = [seeded(ShapesPope.name, seed, SUBSETS[i % 3], i // 3) for i in range(count)]
    scenes = [_scene(rng) for rng in rngs]
    frequent = _frequent(scenes)
    asked = []
    for i, (rng, scene) in enumerate(zip(rngs, scenes, strict=True)):
        subset, yes = SUBSETS[i % 3], i // 3 % 2 == 0
        pair = rng.choice(sorted(_present(scene))) if yes else _absent(subset, scene, frequent, rng)
        asked.append((subset, _example(scene, pair, rng)))
    return asked


def _scene(rng: Random) -> Scene:
    """A scene that allows an adversarial absence, for every subset, so that subsets do not differ in their scenes."""
    while True:
        scene = held_out_scene(rng)
        if _mixed(scene):
            return scene


def _frequent(scenes: Sequence[Scene]) -> list[Pair]:
    """The pairs that most scenes have; of equals, those that the world lists first."""
    counts = Counter(pair for scene in scenes for pair in _present(scene))
    return sorted(PAIRS, key=lambda pair: -counts[pair])[:POPULAR]


def _present(scene: Scene) -> set[Pair]:
    return {(thing.shape, thing.color) for thing in scene.things}


def _mixed(scene: Scene) -> list[Pair]:
    """Absent pairs whose shape and colour both occur, on different things."""
    present = _present(scene)
    shapes, colors = {shape for shape, _ in present}, {color for _, color in present}
    return [
        (shape, color)
        for shape, color in PAIRS
        if shape in shapes and color in colors and (shape, color) not in present
    ]


def _absent(subset: str, scene: Scene, frequent: Sequence[Pair], rng: Random) -> Pair:
    """A pair that the scene lacks; a scene's 12 things cannot have all 16 frequent pairs."""
    if subset == "adversarial":
        return rng.choice(_mixed(scene))
    present = _present(scene)
    return rng.choice([pair for pair in (frequent if subset == "popular" else PAIRS) if pair not in present])


def _example(scene: Scene, pair: Pair, rng: Random) -> Example:
    """The world's "exist" question about one pair, in the words that the demo model was taught."""
    shape, color = pair
    cells = tuple(thing.cell for thing in scene.things if (thing.shape, thing.color) == pair)
    text = f"Is there a {color} {shape} in the image?"
    return Example(scene, SceneQuestion("exist", text, YES if cells else NO, cells), rng.getrandbits(32))
