"""Finding official files where their archives put them, and reading them with the place of every fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks.base import Question
from headwise_lab.benchmarks.files import Entry

PEOPLE = 10


@attrs.frozen
class Row:
    """A question as its file tells it. Its picture is looked for only when it is asked: most are not, under a limit."""

    question: Question
    entry: Entry
    suffixes: tuple[str, ...] = ("",)

    def ready(self) -> Question:
        """The question with its picture found; raises DataError naming the line where there is none."""
        image = self.question.image
        return attrs.evolve(self.question, image=self.entry.picture(image.parent, image.name, self.suffixes))


def place(folder: Path, *candidates: str) -> Path:
    """The first of the candidates that exists in the folder, else the first, for a message to name."""
    paths = [folder / candidate for candidate in candidates]
    return next((path for path in paths if path.exists()), paths[0])


def in_file_order(rows: Sequence[Row], limit: int | None) -> list[Question]:
    """The first ``limit`` questions: a beginning as mixed as the file is, so that its mean estimates the whole's."""
    at_least(limit, 1)
    return [row.ready() for row in rows[:limit]]


def whole_units(rows: Sequence[Row], limit: int | None) -> list[Question]:
    """At most ``limit`` questions without splitting a unit, units in file order; raises DataError if none fits."""
    units: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        units[row.question.unit].append(row)
    taken: list[Row] = []
    for together in units.values():
        if limit is not None and len(taken) + len(together) > limit:
            break
        taken += together
    if not taken:
        at_least(limit, len(next(iter(units.values()))))
    return [row.ready() for row in taken]


def at_least(limit: int | None, least: int) -> None:
    """Raise DataError for a limit that leaves no question."""
    if limit is not None and limit < least:
        raise DataError(f"a limit of {limit} leaves no question; the smallest limit is {least}")


def ten_answers(entry: Entry) -> tuple[str, ...]:
    """What ten people said, as VQAv2 and VizWiz list it: objects with the text under "answer"."""
    found = entry.field("answers")
    if not isinstance(found, list) or len(found) != PEOPLE:
        raise entry.wrong(f"'answers' should be a list of {PEOPLE} answers")
    for number, one in enumerate(found, start=1):
        if not isinstance(one, dict) or not isinstance(one.get("answer"), str):
            raise entry.wrong(f"answer {number} should be an object with a text under 'answer'")
    return tuple(one["answer"] for one in found)
