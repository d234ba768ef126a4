"""What a benchmark is: it writes or reads a folder in an official layout and scores answers by the official formula."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs

from headwise.errors import DataError

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
    """A benchmark; found by the entry-point group ``headwise.benchmark``, a class built without arguments.

    Beside this it may have ``new_tokens``, how long an answer may be, and ``needs_data = True`` where it cannot prepare
    questions of its own; one whose predictions others score has ``submission``
    (headwise_lab.benchmarks.submission), and ``judged = True`` where a judge is to read them whatever else is scored.
    One whose rows are a dataset of the hub may have ``hub`` (headwise_lab.benchmarks.hub.layouts.Layout), for
    ``--data hub``.
    """

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
        """Write ``count`` questions into ``folder`` unless they are there; DataError for a folder not ours to write."""

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The first ``limit`` questions, kinds that are subsets taking turns; DataError with file and line of faults.

        Questions without ``answers`` belong to a split that only a server can score.
        """

    def score(self, question: Question, prediction: str) -> float:
        """What one prediction is worth, 0 to 1, read by the official rules."""

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Unit -> its score, whose mean x ``scale`` is the headline."""

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """The official figures by name; ratios in per cent. There must be at least one question."""


def in_turns(questions: Sequence[Question], limit: int | None, *, group: int = 1) -> list[Question]:
    """At most ``limit`` questions, kinds taking turns and each kind in file order, so that any prefix is balanced.

    ``group`` consecutive questions belong together and are never split. Raises DataError if the limit is below that.
    """
    if limit is not None and limit < group:
        raise DataError(f"a limit of {limit} leaves no question; the smallest limit is {group}")
    turns: dict[str, int] = defaultdict(int)
    ranked: list[tuple[int, Sequence[Question]]] = []
    for start in range(0, len(questions), group):
        kind = questions[start].kind
        ranked.append((turns[kind], questions[start : start + group]))
        turns[kind] += 1
    ranked.sort(key=lambda turn: turn[0])  # stable: within a turn, kinds stay in file order
    taken = [question for _, together in ranked for question in together]
    return taken if limit is None else taken[: limit - limit % group]


def per_question(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
    """The usual units: every question its own."""
    return {question.unit: score for question, score in zip(questions, scores, strict=True)}


def by_kind(name: str, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
    """Means in per cent: ``name`` over all questions, then ``name/kind`` for each kind, sorted."""
    kinds: dict[str, list[float]] = defaultdict(list)
    for question, score in zip(questions, scores, strict=True):
        kinds[question.kind].append(score)
    parts = {f"{name}/{kind}": PERCENT * mean(kinds[kind]) for kind in sorted(kinds)}
    return {name: PERCENT * mean(scores), **parts}


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)
