"""Finding official files where their archives put them, and which of their questions a limit takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from headwise_lab.benchmarks.base import Question, at_least
from headwise_lab.benchmarks.files import Entry, QuestionRow

PEOPLE = 10


def first_existing(folder: Path, *candidates: str) -> Path:
    """The first of the candidates that exists in the folder; where none does, the first, which an error then names."""
    paths = [folder / candidate for candidate in candidates]
    return next((path for path in paths if path.exists()), paths[0])


def in_file_order(rows: Sequence[QuestionRow], limit: int | None) -> list[Question]:
    """The first ``limit`` questions. They are as mixed as the file, so their mean estimates that of all."""
    at_least(limit, 1)
    return [row.ready() for row in rows[:limit]]


def whole_units(rows: Sequence[QuestionRow], limit: int | None) -> list[Question]:
    """At most ``limit`` questions: whole units in file order. Raises DataError if not even the first unit fits."""
    units: dict[str, list[QuestionRow]] = defaultdict(list)
    for row in rows:
        units[row.question.unit].append(row)
    taken: list[QuestionRow] = []
    for together in units.values():
        if limit is not None and len(taken) + len(together) > limit:
            break
        taken += together
    if not taken:
        at_least(limit, len(next(iter(units.values()))))
    return [row.ready() for row in taken]


def ten_answers(entry: Entry) -> tuple[str, ...]:
    """What ten people said, as VQAv2 and VizWiz list it: objects with the text under "answer"."""
    found = entry.field("answers")
    if not isinstance(found, list) or len(found) != PEOPLE:
        raise entry.wrong(f"'answers' should be a list of {PEOPLE} answers")
    for number, one in enumerate(found, start=1):
        if not isinstance(one, dict) or not isinstance(one.get("answer"), str):
            raise entry.wrong(f"answer {number} should be an object with a text under 'answer'")
    return tuple(one["answer"] for one in found)
