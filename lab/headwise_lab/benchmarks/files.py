"""Reading benchmark files so that every fault is reported with file and line, and writing their JSON a row a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import attrs

from headwise.errors import DataError
from headwise.reading import json_of, text_of
from headwise_lab.benchmarks.base import Question
from headwise_lab.metrics.overlap import Box

BOXES = "boxes.json"  # ours, beside the official files: question id -> boxes
DIGITS = 18  # of the longest id that is a number
BETWEEN = re.compile(r"[\s,:]*")

MOST_PIXELS = 10**9


@attrs.frozen
class Entry:
    """One question as a file gives it, with the file and line that an error names."""

    path: Path
    line: int
    key: str  # its key in the file's JSON object, or its number in the array
    value: Any

    def wrong(self, what: str) -> DataError:
        """The error that says ``what`` is wrong here."""
        return DataError(f"{self.path}, line {self.line}: {what}")

    def field(self, name: str) -> Any:
        """A field of the question's JSON object; raises DataError where either is missing."""
        if not isinstance(self.value, Mapping):
            raise self.wrong(f"expected a JSON object with a question, found {_short(self.value)}")
        if name not in self.value:
            raise self.wrong(f"the question has no {name!r}")
        return self.value[name]

    def text(self, name: str) -> str:
        """A field that is text, or a whole number as ids often are."""
        value = self.field(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.wrong(f"{name!r} should be text, found {_short(value)}")
        return str(value)

    def number(self, name: str) -> str:
        """A field that is a whole number, 0 or more, as text."""
        text = self.text(name)
        if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
            raise self.wrong(f"{name!r} should be a whole number, found {_short(text)}")
        return text

    def texts(self, name: str, count: int) -> tuple[str, ...]:
        """A field that is a list of exactly ``count`` texts."""
        value = self.field(name)
        if not isinstance(value, list) or len(value) != count or not all(isinstance(item, str) for item in value):
            raise self.wrong(f"{name!r} should be a list of {count} texts, found {_short(value)}")
        return tuple(value)

    def picture(self, folder: Path, stem: str, suffixes: tuple[str, ...] = ("",)) -> Path:
        """The picture ``stem`` with the first of the suffixes that exists; raises DataError where none does."""
        for suffix in suffixes:
            try:
                if (folder / f"{stem}{suffix}").is_file():
                    return folder / f"{stem}{suffix}"
            except (OSError, ValueError) as error:  # too long, or with a null byte
                raise self.wrong(f"the picture {_short(stem)} has no name that a file can have") from error
        raise self.wrong(f"the picture {folder / f'{stem}{suffixes[0]}'} is missing")


@attrs.frozen
class QuestionRow:
    """A question as its file tells it. Its picture is looked for only when it is asked: most are not, under a limit."""

    question: Question
    entry: Entry
    suffixes: tuple[str, ...] = ("",)

    def ready(self) -> Question:
        """The question with its picture found; raises DataError naming the line where there is none."""
        image = self.question.image
        return attrs.evolve(self.question, image=self.entry.picture(image.parent, image.name, self.suffixes))


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of every line that is not blank; only a line feed ends a line."""
    return [(i, line) for i, line in enumerate(text_of(path).split("\n"), start=1) if line.strip()]


def json_lines(path: Path) -> list[Entry]:
    """The values of a file with one JSON value a line; blank lines are skipped."""
    return [Entry(path, i, str(i), json_of(line, str(path), first_line=i)) for i, line in numbered_lines(path)]


def json_members(path: Path, inside: str | None = None) -> list[Entry]:
    """The members of a file's JSON object or array, each with its line; those under the key ``inside``, if given."""
    text = text_of(path)
    document = json_of(text, str(path))
    at = len(text) - len(text.lstrip())
    if inside is not None:
        found = [start for key, _, start in _members(text, at) if key == inside] if isinstance(document, dict) else []
        if not found:
            raise DataError(f"{path}, line 1: expected a JSON object with the key {inside!r}")
        document, at = document[inside], found[-1]
    if not isinstance(document, dict | list):
        raise DataError(f"{path}, line {text.count(chr(10), 0, at) + 1}: expected questions, found {_short(document)}")
    entries, line, counted = [], 1, 0
    for key, value, start in _members(text, at):
        line, counted = line + text.count("\n", counted, start), start
        entries.append(Entry(path, line, key, value))
    return entries


def _members(text: str, at: int) -> Iterator[tuple[str, Any, int]]:
    """Key, value and offset of the members of the valid JSON object or array at ``at``; an array's keys are numbers."""
    decoder, is_object, number = json.JSONDecoder(), text[at] == "{", 0
    at = _skip(text, at + 1)
    while text[at] not in "]}":
        key = str(number)
        if is_object:
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, at)
        value, end = decoder.raw_decode(text, at)
        yield key, value, at
        at, number = _skip(text, end), number + 1


def _skip(text: str, at: int) -> int:
    """The offset after white space, commas and colons."""
    found = BETWEEN.match(text, at)
    return found.end() if found else at


def distinct(path: Path, ids: list[tuple[str, Entry]]) -> dict[str, Entry]:
    """Question id -> entry; raises DataError where there is no question, or two have the same id."""
    if not ids:
        raise DataError(f"{path} holds no question")
    found: dict[str, Entry] = {}
    for name, entry in ids:
        if name in found:
            raise entry.wrong(f"question {name!r} is already on line {found[name].line}")
        found[name] = entry
    return found


def read_boxes(folder: Path) -> dict[str, tuple[Box, ...]]:
    """Question id -> boxes; empty where the folder has no file of boxes, as folders of official data."""
    path = folder / BOXES
    return {entry.key: _boxes(entry) for entry in json_members(path)} if path.is_file() else {}


def _boxes(entry: Entry) -> tuple[Box, ...]:
    rows: list[Any] = entry.value if isinstance(entry.value, list) else [entry.value]
    for row in rows:
        if not (isinstance(row, list) and len(row) == 4 and all(map(_is_place, row))):
            raise entry.wrong(f"question {entry.key!r} should have a list of [x0, y0, x1, y1], found {_short(row)}")
        if not (row[0] < row[2] and row[1] < row[3]):
            raise entry.wrong(f"question {entry.key!r} has an empty box {row}; x0 < x1 and y0 < y1 are wanted")
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in rows)


def _is_place(value: Any) -> bool:
    """Whether the value can be a number of pixels."""
    return type(value) in (int, float) and abs(value) < MOST_PIXELS


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


class Members:
    """The members of a JSON array or object, written one a line as they come."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._empty = True

    def add(self, value: object, key: str | None = None) -> None:
        """Write one member; ``key`` in an object."""
        named = "" if key is None else f"{json.dumps(key, ensure_ascii=False)}: "
        self._stream.write(("\n" if self._empty else ",\n") + named + json.dumps(value, ensure_ascii=False))
        self._empty = False


@contextmanager
def members(path: Path, before: str, after: str) -> Iterator[Members]:
    """Write a JSON file whose members stand between ``before`` and ``after``."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(before)
        yield Members(stream)
        stream.write(f"\n{after}\n")
