"""shapes-mme: two questions about each picture, one whose answer is yes and one whose answer is no.

The layout of MME (Fu et al. 2023, arXiv:2306.13394): ``CATEGORY/IMAGE.png`` beside ``CATEGORY/IMAGE.txt`` with two
lines "question<tab>Yes|No", or both under ``images/`` and ``questions_answers_YN/``. As in LLaVA-1.5's scripts, the
prompt suffix takes the place of the files' "Please answer yes or no.".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from headwise.errors import DataError
from headwise_lab.benchmarks.base import PERCENT, SUFFIX, Question, by_unit, in_turns, mean
from headwise_lab.benchmarks.files import Entry, numbered_lines, read_boxes
from headwise_lab.benchmarks.shapes import Shapes, held_out_scene, seeded, write_boxes
from headwise_lab.metrics.answers import NO, YES, mme_yes_no
from headwise_lab.metrics.overlap import Box
from headwise_lab.scenes import Example, Scene, SceneQuestion, ask

CATEGORIES = {"existence": "exist", "position": "relation"}  # category -> kind of question in the world
PLEASE = "Please answer yes or no."
PAIR = 2
TRIES = 40  # questions drawn for a scene until one with yes and one with no is found


class ShapesMme(Shapes):
    """Existence and position, a yes and a no question per picture; accuracy of each plus accuracy of both."""

    name = "shapes-mme"
    metric = "score"
    least = PAIR * len(CATEGORIES)

    def write(self, folder: Path, count: int, seed: int) -> None:
        """Write ``count`` questions (an odd count becomes even), categories taking turns; each picture has a pair."""
        boxes = []
        for number, (category, yes, no) in enumerate(examples(count, seed)):
            stem = folder / category / f"{number // len(CATEGORIES) + 1:04d}"
            stem.parent.mkdir(exist_ok=True)
            yes.save_picture(stem.with_suffix(".png"))
            lines = [f"{yes.question.text} {PLEASE}\tYes\n", f"{no.question.text} {PLEASE}\tNo\n"]
            stem.with_suffix(".txt").write_text("".join(lines), encoding="utf-8")
            boxes += [(f"{category}/{stem.name}:{i}", one.question) for i, one in enumerate((yes, no), start=1)]
        write_boxes(folder, boxes)

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The questions of all categories. Pairs take turns and stay whole. DataError with file and line of a fault."""
        boxes = read_boxes(folder)
        questions = [q for category in _categories(folder) for q in read_category(category, boxes)]
        if not questions:
            raise DataError(f"{folder} holds no question; wanted CATEGORY/IMAGE.txt with two lines each")
        return in_turns(questions, limit, group=PAIR)

    def score(self, question: Question, prediction: str) -> float:
        """1 where the first four characters of the prediction say what the answer is."""
        return float(mme_yes_no(prediction) == question.answers[0].lower())

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Picture -> share of its questions that are right, plus 1 where all are (0 to 2)."""
        return {unit: mean(pair) + all(pair) for unit, pair in by_unit(questions, scores).items()}

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """acc, acc_plus and their sum, score, per category (0-200); mean score per picture; total over categories."""
        scores = self.scores(questions, predictions)
        category = {question.unit: question.kind for question in questions}
        pairs: dict[str, list[list[float]]] = defaultdict(list)
        for unit, pair in by_unit(questions, scores).items():
            pairs[category[unit]].append(pair)
        figures: dict[str, float] = {}
        for name, of_category in sorted(pairs.items()):
            acc = PERCENT * mean([score for pair in of_category for score in pair])
            plus = PERCENT * mean([float(all(pair)) for pair in of_category])
            figures |= {f"acc/{name}": acc, f"acc_plus/{name}": plus, f"score/{name}": acc + plus}
        headline = PERCENT * mean(list(self.units(questions, scores).values()))
        return {self.metric: headline, "total": sum(figures[f"score/{name}"] for name in pairs), **figures}


def _categories(folder: Path) -> list[Path]:
    try:
        return sorted(item for item in folder.iterdir() if item.is_dir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def read_category(category: Path, boxes: Mapping[str, tuple[Box, ...]]) -> list[Question]:
    """The questions of a category, in either official layout; none where there are no text files."""
    split = (category / "images").is_dir()
    texts, images = (category / "questions_answers_YN", category / "images") if split else (category, category)
    return [question for path in sorted(texts.glob("*.txt")) for question in _pair(path, images, category.name, boxes)]


def _pair(path: Path, images: Path, category: str, boxes: Mapping[str, tuple[Box, ...]]) -> list[Question]:
    unit = f"{category}/{path.stem}"
    lines = [Entry(path, i, str(i), line) for i, line in numbered_lines(path)]
    if len(lines) != PAIR:
        where = lines[-1].line if lines else 1
        raise DataError(f"{path}, line {where}: expected {PAIR} questions about the picture, found {len(lines)}")
    image = lines[0].picture(images, path.stem, (".jpg", ".png"))
    questions = []
    for number, line in enumerate(lines, start=1):
        name, (text, answer) = f"{unit}:{number}", _parse(line)
        questions.append(Question(name, unit, image, text, (answer,), category, boxes.get(name, ())))
    return questions


def _parse(line: Entry) -> tuple[str, str]:
    """The prompt and the answer of one line."""
    question, tab, answer = line.value.strip().partition("\t")
    if not tab or answer.lower() not in (YES, NO):
        raise line.wrong("expected a question, a tab, and Yes or No")
    return question.removesuffix(PLEASE).strip() + SUFFIX, answer


def examples(count: int, seed: int) -> list[tuple[str, Example, Example]]:
    """Category, question with yes and question with no of every picture; both are about the same scene."""
    names = tuple(CATEGORIES)
    asked = []
    for i in range((count + 1) // PAIR):
        category = names[i % len(names)]
        rng = seeded(ShapesMme.name, seed, category, i // len(names))
        scene, yes, no = _both(CATEGORIES[category], rng)
        noise = rng.getrandbits(32)
        asked.append((category, Example(scene, yes, noise), Example(scene, no, noise)))
    return asked


def _both(kind: str, rng: Random) -> tuple[Scene, SceneQuestion, SceneQuestion]:
    """A scene, a question about it whose answer is yes, and one whose answer is no."""
    while True:
        scene = held_out_scene(rng)
        found = [ask(kind, scene, rng) for _ in range(TRIES)]
        by_answer = {question.answer: question for question in found if question is not None}
        if {YES, NO} <= by_answer.keys():
            return scene, by_answer[YES], by_answer[NO]
