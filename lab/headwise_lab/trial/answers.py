"""Answers of unfinished trials, so that an interrupted trial goes on with its next question.

A local output folder has a file ``answers/<id>.jsonl`` for every unfinished trial, with a line per batch. A line is on
disk before the next batch is asked. The file is deleted when the trial's record is written. Several processes may add
to one file: they run the same trial, so their answers are the same. Nothing can be appended to a file behind a URL, so
an interrupted trial begins again there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks import Question
from headwise_lab.store.atomic import make_folder, refuse_link
from headwise_lab.store.jsonl import append
from headwise_lab.store.locations import is_local
from headwise_lab.store.lock import held
from headwise_lab.store.unfinished import path_in


@attrs.frozen(kw_only=True)
class Answer:
    """What the model said to one question, what it kept of the picture, and what the recorder saw.

    ``kept``: which of the ``visual`` tokens stayed. ``text``: the number of other tokens in the prompt. ``stages``
    to ``entropy``: as in ``headwise_plugins.observers.recorder.RowRecord``; empty where nothing was chosen.
    """

    prediction: str
    kept: list[int]
    visual: int
    text: int
    stages: list[list[int]] = attrs.field(factory=list)
    heads: list[int] = attrs.field(factory=list)
    notes: dict[str, Any] = attrs.field(factory=dict)
    concentration: float | None = None
    entropy: float | None = None


class Answers:
    """The answers of one trial in an output folder. Without a local folder, none are kept."""

    def __init__(self, folder: Path | None, identity: str) -> None:
        seen = folder is not None and is_local(folder) and folder.is_dir()
        self._path = path_in(folder, identity) if folder is not None and seen else None

    def held(self, questions: Sequence[Question]) -> dict[int, Answer]:
        """Number of a question -> the answer that an earlier run has left; incomplete lines are skipped."""
        try:
            lines = [] if self._path is None else self._path.read_bytes().split(b"\n")
        except OSError:
            return {}
        found: dict[int, Answer] = {}
        for line in lines:
            found |= _answers(line, questions)
        return found

    def add(self, first: int, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
        """Write the answers to consecutive questions to disk; ``first`` is the number of the first question.

        Raises DataError where they cannot be written; earlier answers stay. A batch with notes that are not JSON is not
        written, and nothing is raised.
        """
        if self._path is None:
            return
        batch = {"first": first, "ids": [question.id for question in questions]}
        try:
            line = json.dumps(batch | {"answers": [attrs.asdict(answer) for answer in answers]}).encode() + b"\n"
        except (TypeError, ValueError):
            return
        try:
            make_folder(self._path.parent)
            refuse_link(self._path)
            with held(self._path):
                append(self._path, line)
        except OSError as error:
            raise DataError(
                f"{self._path} cannot be written to ({error.strerror or error}); make room or give another --out, and"
                " run the same line again"
            ) from error


def _answers(line: bytes, questions: Sequence[Question]) -> dict[int, Answer]:
    try:
        batch: Mapping[str, Any] = json.loads(line)
        first, ids = batch["first"], batch["ids"]
        if [question.id for question in questions[first : first + len(ids)]] != ids:
            return {}
        return {first + row: Answer(**answer) for row, answer in enumerate(batch["answers"])}
    except (LookupError, TypeError, ValueError, RecursionError):
        return {}
