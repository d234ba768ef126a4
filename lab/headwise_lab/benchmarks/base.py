"""What a benchmark is: it reads a folder in its official layout and scores answers by its official formula."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs

from headwise.errors import DataError
from headwise_lab.metrics.overlap import Box

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
    boxes: tuple[Box, ...] = ()  # in pixels of the image


@runtime_checkable
class Benchmark(Protocol):
    """A benchmark: a class built without arguments, found by the entry-point group ``headwise.benchmark``.

    A benchmark may also have these attributes:

    * ``new_tokens``: the most tokens of an answer.
    * ``needs_data = True``: it cannot prepare questions of its own.
    * ``submission`` (headwise_lab.benchmarks.submission): others score its predictions.
    * ``judged = True``: a judge reads its predictions, even where they are scored here.
    * ``hub`` (headwise_lab.benchmarks.hub.layouts.HubLayout): ``--data hub`` reads its rows from a dataset.
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
        """Write ``count`` questions into ``folder`` unless they are there; DataError where it holds something else."""

    def load(self, folder: Path, limit: int | None) -> list[Question]:
        """The first ``limit`` questions; kinds that are subsets take turns. DataError with file and line of a fault.

        Questions without ``answers`` belong to a split that only a server can score.
        """

    def score(self, question: Question, prediction: str) -> float:
        """The score of one prediction, 0 to 1, by the official rules."""

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Unit -> its score. The headline is ``scale`` x the mean of these."""

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """The official figures by name; ratios in per cent. There must be at least one question."""


class Scored(ABC):
    """A benchmark whose units are its questions and whose figures are mean scores, unless it says otherwise."""

    name = ""
    metric = "accuracy"
    scale = PERCENT

    @abstractmethod
    def score(self, question: Question, prediction: str) -> float:
        """The score of one prediction, 0 to 1; raises DataError where the file gives no answer."""

    def scores(self, questions: Sequence[Question], predictions: Sequence[str]) -> list[float]:
        """The score of every prediction."""
        return [self.score(question, said) for question, said in zip(questions, predictions, strict=True)]

    def units(self, questions: Sequence[Question], scores: Sequence[float]) -> dict[str, float]:
        """Every question is a unit."""
        return {question.unit: score for question, score in zip(questions, scores, strict=True)}

    def metrics(self, questions: Sequence[Question], predictions: Sequence[str]) -> dict[str, float]:
        """The mean score over all questions and per kind."""
        return by_kind(self.metric, questions, self.scores(questions, predictions))


def in_turns(questions: Sequence[Question], limit: int | None, *, group: int = 1) -> list[Question]:
    """At most ``limit`` questions. Kinds take turns, each in file order, so that every beginning is balanced.

    ``group`` consecutive questions belong together and are never split. Raises DataError if the limit is below that.
    """
    at_least(limit, group)
    turns: dict[str, int] = defaultdict(int)
    ranked: list[tuple[int, Sequence[Question]]] = []
    for start in range(0, len(questions), group):
        kind = questions[start].kind
        ranked.append((turns[kind], questions[start : start + group]))
        turns[kind] += 1
    ranked.sort(key=lambda turn: turn[0])  # stable: within a turn, kinds stay in file order
    taken = [question for _, together in ranked for question in together]
    return taken if limit is None else taken[: limit - limit % group]


def at_least(limit: int | None, least: int) -> None:
    """Raise DataError for a limit that leaves no question."""
    if limit is not None and limit < least:
        raise DataError(f"a limit of {limit} leaves no question; the smallest limit is {least}")


def by_unit(questions: Sequence[Question], scores: Sequence[float]) -> dict[str, list[float]]:
    """Unit -> the scores of its questions, both in file order."""
    units: dict[str, list[float]] = defaultdict(list)
    for question, score in zip(questions, scores, strict=True):
        units[question.unit].append(score)
    return units


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
