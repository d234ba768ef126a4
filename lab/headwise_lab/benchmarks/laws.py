"""What a benchmark promises, law by law; each is tried on a few questions of a benchmark that is found by name."""

from __future__ import annotations

import hashlib
import math
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import attrs
from PIL import Image

from headwise_lab.benchmarks import Benchmark, Question, benchmark

COUNT = 12
"""Questions that a benchmark is asked to prepare, or as many more as its smallest number."""
ODD = ("", " ", "yes", "No.", "A", "7", "a red circle", "Ünï\u00e7ode \u2192 \n twice", "x" * 2000)
"""Predictions that no right answer need be like."""


@attrs.frozen(eq=False)
class Subject:
    """A benchmark and the folder with its questions; ``own``: it prepared them itself."""

    name: str
    folder: Path
    own: bool
    benchmark: Benchmark

    def again(self) -> Benchmark:
        """The benchmark, built anew."""
        return benchmark(self.name)

    def questions(self, limit: int | None = None) -> list[Question]:
        """Its questions, read anew."""
        return self.again().load(self.folder, limit)

    def prepare(self, folder: Path) -> None:
        """Its own questions, written into a folder."""
        self.again().prepare(folder, max(COUNT, int(getattr(self.benchmark, "least", 1))), 0)


Law = Callable[[Subject], None]


def contract_is_whole(subject: Subject) -> None:
    """It has the name of its entry point, a named figure and a scale, and answers of at least one token."""
    found, bare = subject.benchmark, subject.name.rpartition("/")[2]
    assert found.name == bare, f"its entry point is called {bare!r}, and its name is {found.name!r}"
    assert _is_text(found.metric), f"metric={found.metric!r} names no figure"
    assert 0 < found.scale < math.inf, f"scale={found.scale!r} is not a number above 0"
    tokens = getattr(found, "new_tokens", 1)
    assert isinstance(tokens, int), f"new_tokens={tokens!r} is no whole number"
    assert tokens >= 1, f"new_tokens={tokens!r} leaves no room for an answer"


def questions_are_whole(subject: Subject) -> None:
    """There are questions, each with an id, a unit, a text, a kind and a picture that opens; boxes lie inside it."""
    questions = subject.questions()
    assert questions, "it gave no question"
    for question in questions:
        assert isinstance(question, Question), f"it gave a {type(question).__name__}; wanted a Question"
        for part in ("id", "unit", "text", "kind"):
            value = getattr(question, part)
            assert _is_text(value), f"question {question.id!r} has {part}={value!r}"
        assert all(isinstance(answer, str) for answer in question.answers), f"{question.id}: an answer is no text"
        with Image.open(question.image) as picture:
            width, height = picture.size
        for x0, y0, x1, y1 in question.boxes:
            inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
            assert inside, f"{question.id}: box {(x0, y0, x1, y1)} is not inside {width} x {height} pixels"


def ids_are_stable(subject: Subject) -> None:
    """No two questions have one id, and reading them again gives the same ones in the same order."""
    first, second = subject.questions(), subject.questions()
    ids = [question.id for question in first]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    assert twice is None, f"several questions have the id {twice!r}"
    assert first == second, _differing("read again", first, second)


def a_limit_is_a_beginning(subject: Subject) -> None:
    """A limit gives the first questions of all, never more than it says, so that runs of any length can be paired."""
    whole = subject.questions()
    limit = max(len(whole) // 2, int(getattr(subject.benchmark, "least", 1)))
    some = subject.questions(limit)
    assert 0 < len(some) <= limit, f"a limit of {limit} gave {len(some)} of {len(whole)} questions"
    assert some == whole[: len(some)], _differing(f"with a limit of {limit}", whole, some)


def preparing_repeats(subject: Subject) -> None:
    """Its own questions follow from count and seed: prepared elsewhere they are the same, with the same pictures."""
    if not subject.own:
        return
    before = _content(subject.folder)
    subject.prepare(subject.folder)
    assert _content(subject.folder) == before, "preparing a folder a second time changed it"
    elsewhere = subject.folder.with_name("elsewhere")
    subject.prepare(elsewhere)
    assert _content(elsewhere) == before, "another folder with the same count and seed holds other files"


def reading_changes_nothing(subject: Subject) -> None:
    """Reading questions writes nothing into their folder, which may be somebody's only copy."""
    before = _content(subject.folder)
    subject.questions()
    assert _content(subject.folder) == before, "the folder is not as it was before"


def nothing_is_fetched(subject: Subject) -> None:
    """Questions that are on this machine are read without the network."""
    with _forbidden("it asked for the network", (socket.socket, "connect"), (socket, "getaddrinfo")):
        subject.questions()


def nothing_is_unpickled(subject: Subject) -> None:
    """No file is read by pickle, which would run whatever code is in it."""
    with _forbidden("it unpickled a file", (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        subject.questions()


def scores_are_shares(subject: Subject) -> None:
    """Whatever a model says has a score from 0 to 1, the same every time."""
    other = subject.again()
    for question in _answered(subject):
        for said in (*ODD, *question.answers):
            score = subject.benchmark.score(question, said)
            assert _is_share(score), f"{question.id}: {said!r} has the score {score!r}"
            again = other.score(question, said)
            assert again == score, f"{question.id}: {said!r} has the score {score!r}, and then {again!r}"


def right_answers_are_right(subject: Subject) -> None:
    """One of the right answers to each question scores above 0, and no other prediction scores more."""
    for question in _answered(subject):
        best = max(subject.benchmark.score(question, answer) for answer in question.answers)
        assert best > 0, f"{question.id}: of the right answers {question.answers} none scores"
        for said in ODD:
            score = subject.benchmark.score(question, said)
            assert score <= best, f"{question.id}: {said!r} scores {score!r}, and the right answers {best!r}"


def figures_follow_from_scores(subject: Subject) -> None:
    """Units are those of the questions; figures are finite, and the headline is scale times the mean of the units."""
    questions = _answered(subject)
    if not questions:
        return
    found, said = subject.benchmark, [question.answers[0] for question in questions]
    units = found.units(questions, [found.score(*pair) for pair in zip(questions, said, strict=True)])
    assert units, "there are questions and no units"
    named = {question.unit for question in questions}
    for unit, score in units.items():
        assert unit in named, f"no question has the unit {unit!r}"
        assert 0 <= score < math.inf, f"unit {unit!r} has the score {score!r}"
    figures = found.metrics(questions, said)
    wrong = {name: value for name, value in figures.items() if not math.isfinite(value)}
    assert not wrong, f"figures are not finite: {wrong}"
    assert found.metric in figures, f"its headline {found.metric!r} is not among its figures {', '.join(figures)}"
    mean = found.scale * sum(units.values()) / len(units)
    close = math.isclose(figures[found.metric], mean, rel_tol=1e-6, abs_tol=1e-6)
    assert close, f"{found.metric} is {figures[found.metric]!r}, and scale x the mean of the units is {mean!r}"


def order_means_nothing(subject: Subject) -> None:
    """The figures are the same in whatever order the questions were asked."""
    questions = _answered(subject)
    if not questions:
        return
    said = [question.answers[0] if number % 2 else "no" for number, question in enumerate(questions)]
    there = subject.benchmark.metrics(questions, said)
    back = subject.benchmark.metrics(questions[::-1], said[::-1])
    assert there.keys() == back.keys(), "asked in another order, it has other figures"
    for name, value in there.items():
        close = math.isclose(value, back[name], rel_tol=1e-9, abs_tol=1e-9)
        assert close, f"{name} is {value!r}, and in another order {back[name]!r}"


LAWS: tuple[Law, ...] = (
    contract_is_whole,
    questions_are_whole,
    ids_are_stable,
    a_limit_is_a_beginning,
    preparing_repeats,
    reading_changes_nothing,
    nothing_is_fetched,
    nothing_is_unpickled,
    scores_are_shares,
    right_answers_are_right,
    figures_follow_from_scores,
    order_means_nothing,
)


def _answered(subject: Subject) -> list[Question]:
    """The questions that can be scored here; those of a split that a server scores have no answers."""
    return [question for question in subject.questions() if question.answers][: 4 * COUNT]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_share(score: object) -> bool:
    return isinstance(score, int | float) and math.isfinite(score) and 0 <= score <= 1


def _differing(when: str, expected: Sequence[Question], found: Sequence[Question]) -> str:
    pairs = zip(expected, found, strict=False)
    place = next((number for number, (one, other) in enumerate(pairs) if one != other), len(found))
    return f"{when}, question number {place + 1} is another one"


def _content(folder: Path) -> dict[str, str]:
    """Path -> digest of every file; when a folder was prepared is nobody's business."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def _forbidden(what: str, *calls: tuple[object, str]) -> Iterator[None]:
    """Inside, these calls break the law."""
    used: list[str] = []

    def refuse(*_: object, **__: object) -> None:
        used.append(what)
        raise OSError(what)

    patches = [patch.object(owner, name, refuse) for owner, name in calls]
    for each in patches:
        each.start()
    try:
        yield
    except Exception:
        if not used:
            raise
    finally:
        for each in patches:
            each.stop()
    assert not used, what
