"""Splits questions into those for the search and held-out ones for the confirmation, without a common picture.

A benchmark that generates its questions generates the held-out ones from another seed. If it reads questions from
files, the search gets the first ones. The held-out ones are chosen from the rest: those whose picture (compared by
content, not by name) and whose unit do not occur in the search.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.benchmarks import Benchmark, Question, benchmark
from headwise_lab.benchmarks.questions import questions_of

SEARCH, HELD_OUT = "search", "held-out"


@attrs.frozen
class Part:
    """Questions of one benchmark, and the seed and limit in their records.

    ``again``: whether `headwise run` with this seed and limit asks the same questions.
    """

    benchmark: Benchmark
    questions: tuple[Question, ...]
    seed: int
    limit: int
    again: bool = True


def split(
    names: Sequence[str], *, data: str | Path | None, limit: int, held_out: int, seed: int
) -> tuple[list[Part], list[Part]]:
    """For every benchmark the questions of the search, and the held-out ones; none of these where ``held_out`` is 0.

    Raises DataError in one sentence where no questions are left to hold out.
    """
    found = [benchmark(name) for name in names]
    searched = [Part(one, tuple(questions_of(one, data=data, limit=limit, seed=seed)), seed, limit) for one in found]
    seen = {picture(question.image) for part in searched for question in part.questions}
    held = [_held_out(part, data, held_out, seen) for part in searched] if held_out else []
    return searched, held


def picture(path: Path) -> bytes:
    """A digest of a picture's content; raises DataError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise DataError(f"the picture {path} cannot be read: {error.strerror}") from error


def _held_out(part: Part, data: str | Path | None, count: int, seen: set[bytes]) -> Part:
    fixed = data is not None or getattr(part.benchmark, "needs_data", False)
    seed = part.seed if fixed else part.seed + 1
    units = {question.unit for question in part.questions} if fixed else set()
    limit = 2 * (part.limit + count) if fixed else count
    while True:  # reads more and more: most benchmarks have many more questions than a search needs
        every = questions_of(part.benchmark, data=data, limit=limit, seed=seed)
        questions = unseen(every, units, seen, count)
        if not fixed or len(questions) >= count or len(every) < limit // 2:
            break
        limit *= 4
    if not questions:
        raise DataError(
            f"{part.benchmark.name} has {len(every)} questions; the search uses {len(part.questions)} of them, and none"
            " is left for the confirmation; give a smaller --limit, or --confirm 0"
        )
    return Part(part.benchmark, questions, seed, count, again=not fixed)


def unseen(every: Sequence[Question], units: set[str], pictures: set[bytes], count: int) -> tuple[Question, ...]:
    """The first whole units of questions that share no unit and no picture with the search, about ``count`` questions.

    A unit that would exceed ``count`` is left out, unless it is the first.
    """
    together: dict[str, list[Question]] = {}
    for question in every:
        if question.unit not in units:
            together.setdefault(question.unit, []).append(question)
    chosen: list[Question] = []
    for members in together.values():
        if len(chosen) >= count:
            break
        if chosen and len(chosen) + len(members) > count:
            continue
        if not any(picture(path) in pictures for path in {member.image for member in members}):
            chosen += members
    return tuple(chosen)
