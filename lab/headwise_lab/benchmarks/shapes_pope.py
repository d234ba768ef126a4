"""shapes-pope: is there such a thing? Yes and no equally often, with three ways of choosing what is absent.

The layout, negatives and figures of POPE (Li et al. 2023, arXiv:2305.10355) as LLaVA-1.5 evaluates it:
``coco_pope_{random,popular,adversarial}.json`` with one question a line, and ``images/``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from headwise_lab.benchmarks.base import PERCENT, SUFFIX, Question, in_turns, mean, per_question
from headwise_lab.benchmarks.cases import Case, enough, held_out_scene, seeded, write_boxes
from headwise_lab.benchmarks.files import Box, distinct, json_lines, read_boxes
from headwise_lab.metrics.answers import NO, YES, pope_yes_no
from headwise_lab.metrics.yes_no import FIGURES, yes_no_figures
from headwise_lab.scenes import COLORS, SHAPES, Scene
from headwise_lab.scenes import Question as Asked
from headwise_lab.store.prepared_folder import prepared

SUBSETS = ("random", "popular", "adversarial")
VERSION = 1  # of what prepare writes; raise it when that changes
POPULAR = 16  # of the 64 pairs count as frequent

Pair = tuple[str, str]  # shape, colour
PAIRS: tuple[Pair, ...] = tuple((shape, color) for shape in SHAPES for color in COLORS)


class ShapesPope:
    """Existence of a coloured shape, yes or no, against random, popular and adversarial absences."""

    name = "shapes-pope"
    metric = "accuracy"
    scale = PERCENT

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions, a third to each subset, every one about a picture of its own."""
        enough(self.name, count, len(SUBSETS))
        stamp = {"benchmark": self.name, "version": VERSION, "count": count, "seed": seed}
        prepared(folder, stamp, lambda workplace: write(workplace, cases(count, seed)))

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions of the three files, subsets taking turns; DataError with file and line of what is wrong."""
        boxes = read_boxes(folder)
        return in_turns([question for subset in SUBSETS for question in _read(folder, subset, boxes)], limit)

    def score(self, question: Question, prediction: str) -> float:
        """1 where POPE's reading of the prediction is the label."""
        return float(pope_yes_no(prediction) == question.answers[0])

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Every question is a unit."""
        return per_question(questions, scores)

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """Accuracy over all; accuracy, precision, recall, F1 and yes-ratio per subset and their means over subsets."""
        subsets = {subset: figures for subset in SUBSETS if (figures := _figures(subset, questions, predictions))}
        means = {name: PERCENT * mean([figures[name] for figures in subsets.values()]) for name in FIGURES}
        right = [self.score(question, said) for question, said in zip(questions, predictions, strict=True)]
        parts = {f"{name}/{s}": PERCENT * figures[name] for s, figures in subsets.items() for name in FIGURES}
        return means | {"accuracy": PERCENT * mean(right)} | parts


def _figures(subset: str, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
    """POPE's figures of one subset; empty where it has no question."""
    chosen = [(q, p) for q, p in zip(questions, predictions, strict=True) if q.kind == subset]
    said, truth = [pope_yes_no(p) for _, p in chosen], [q.answers[0] for q, _ in chosen]
    return yes_no_figures(said, truth) if chosen else {}


def _read(folder: Path, subset: str, boxes: dict[str, tuple[Box, ...]]) -> list[Question]:
    path = _file(folder, subset)
    entries = distinct(path, [(f"{subset}/{entry.text('question_id')}", entry) for entry in json_lines(path)])
    questions = []
    for name, entry in entries.items():
        label = entry.text("label")
        if label not in (YES, NO):
            raise entry.wrong(f"'label' should be yes or no, found {label!r}")
        image = entry.picture(folder / "images", entry.text("image"))
        text = entry.text("text") + SUFFIX
        questions.append(Question(name, name, image, text, (label,), subset, boxes.get(name, ())))
    return questions


def _file(folder: Path, subset: str) -> Path:
    return folder / f"coco_pope_{subset}.json"


def cases(count: int, seed: int) -> list[tuple[str, Case]]:
    """(subset, case) of every question: subsets take turns, and within each, yes and no."""
    rngs = [seeded(ShapesPope.name, seed, SUBSETS[i % 3], i // 3) for i in range(count)]
    scenes = [_scene(rng) for rng in rngs]
    frequent = _frequent(scenes)
    asked = []
    for i, (rng, scene) in enumerate(zip(rngs, scenes, strict=True)):
        subset, yes = SUBSETS[i % 3], i // 3 % 2 == 0
        pair = rng.choice(sorted(_present(scene))) if yes else _absent(subset, scene, frequent, rng)
        asked.append((subset, Case(scene, rng.getrandbits(32), _question(scene, pair))))
    return asked


def _scene(rng: Random) -> Scene:
    """A scene that allows an adversarial absence, whatever it is used for: the subsets must not differ in scenes."""
    while True:
        scene = held_out_scene(rng)
        if _mixed(scene):
            return scene


def _frequent(scenes: Sequence[Scene]) -> list[Pair]:
    """The pairs that most scenes have, ties to the earlier in the world's order."""
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
    """A pair the scene lacks; 12 things at most never exhaust the 16 frequent pairs."""
    if subset == "adversarial":
        return rng.choice(_mixed(scene))
    present = _present(scene)
    return rng.choice([pair for pair in (frequent if subset == "popular" else PAIRS) if pair not in present])


def _question(scene: Scene, pair: Pair) -> Asked:
    """The world's "exist" question about one pair, phrased as the demo model was taught."""
    shape, color = pair
    cells = tuple(thing.cell for thing in scene.things if (thing.shape, thing.color) == pair)
    return Asked("exist", f"Is there a {color} {shape} in the image?", YES if cells else NO, cells)


def write(folder: Path, asked: Sequence[tuple[str, Case]]) -> None:
    """Write the three question files, the pictures and the boxes."""
    (folder / "images").mkdir()
    lines: dict[str, list[str]] = {subset: [] for subset in SUBSETS}
    boxes = []
    for number, (subset, case) in enumerate(asked):
        image, name = f"SHAPES_{number:012d}.png", len(lines[subset]) + 1
        case.save_picture(folder / "images" / image)
        question = case.question
        row = {"question_id": name, "image": image, "text": question.text, "label": question.answer}
        lines[subset].append(json.dumps(row) + "\n")
        boxes.append((f"{subset}/{name}", question))
    for subset, rows in lines.items():
        _file(folder, subset).write_text("".join(rows), encoding="utf-8")
    write_boxes(folder, boxes)
