"""What a benchmark is: it writes or reads a folder in an official layout and scores answers by the official formula."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs

from headwise_lab.benchmarks.files import malformed

SUFFIX = "\nAnswer the question using a single word or phrase."  # LLaVA-1.5's prompt for short answers
PERCENT = 100.0


@attrs.frozen
class Question:
    """One question of a benchmark, ready to be asked."""

    id: str
    unit: str  # what is paired and averaged: the id, or category/image for MME
    image: Path
    text: str  # with the official prompt suffix
    answers: tuple[str, ...]
    kind: str
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # x0, y0, x1, y1 in pixels of the image, ends excluded


@runtime_checkable
class Benchmark(Protocol):
    """A benchmark; found by the entry-point group ``headwise.benchmark``, a class built without arguments."""

    @property
    def name(self) -> str:
        """What the user types."""

    @property
    def metric(self) -> str:
        """Name of the headline figure, which is ``scale`` x the mean unit score."""

    @property
    def scale(self) -> float:
        """Headline per unit of score: 100 makes per cent."""

    def prepare(self, folder: Path, count: int, seed: int) -> None:
        """Write the benchmark into ``folder`` unless it is there; raises DataError for a folder it must not touch."""

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The first ``limit`` questions, kinds taking turns; raises DataError naming file and line of what is wrong."""

    def score(self, question: Question, prediction: str) -> float:
        """What one prediction is worth, 0 to 1, read by the official rules."""

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Unit -> its score, whose mean x ``scale`` is the headline."""

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """The official figures by name; ratios in per cent."""


def per_question(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
    """The usual units: every question its own."""
    return {question.unit: score for question, score in zip(questions, scores, strict=True)}


def by_kind(name: str, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
    """``name`` over all questions and ``name/kind`` for each kind, in per cent."""
    groups: dict[str, list[float]] = defaultdict(list)
    for question, score in zip(questions, scores, strict=True):
        groups[f"{name}/{question.kind}"].append(score)
    return {key: PERCENT * mean(values) for key, values in ({name: list(scores)} | groups).items()}


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)


def in_turns(
    questions: Sequence[Question], limit: int | None, folder: Path, *, size: int = 1, kind: Callable[[Question], str]
) -> list[Question]:
    """At most ``limit`` questions, kinds taking turns and each kind in file order, so any prefix is balanced.

    Questions come in consecutive groups of ``size`` that are never split. Raises DataError if there are none, if two
    share an id, or if the limit is below one group.
    """
    _check(questions, folder)
    if limit is not None and limit < size:
        raise malformed(folder, f"a limit of {limit} leaves no question; the smallest possible limit is {size}")
    turns: dict[str, int] = defaultdict(int)
    ranked = []
    for start in range(0, len(questions), size):
        group = questions[start : start + size]
        ranked.append((turns[kind(group[0])], group))
        turns[kind(group[0])] += 1
    ranked.sort(key=lambda turn: turn[0])  # stable: within a turn, kinds stay in file order
    groups = [group for _, group in ranked][: None if limit is None else limit // size]
    return [question for group in groups for question in group]


def _check(questions: Sequence[Question], folder: Path) -> None:
    if not questions:
        raise malformed(folder, "holds no question")
    seen: Mapping[str, int]
