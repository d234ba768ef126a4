"""Benchmark folders, damaged: small folders in official layouts, one or more of whose files are changed at random."""

from __future__ import annotations

import atexit
import json
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import attrs
from tests.lab.official_files import WRITERS

from headwise.errors import DataError
from headwise_lab.benchmarks import Question, benchmark
from headwise_lab.benchmarks.pictures import check

SYNTHETIC = ("shapes-gqa", "shapes-mme", "shapes-pope", "shapes-textvqa")
LONGEST = 20.0  # seconds
VALUES = (
    *(
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "1e400",
        "NaN",
        "-Infinity",
        "9" * 5000,
        f'"{"9" * 5000}"',
        "9" * 400,
        '""',
        '"\\ud800"',
        '"\\u0000"',
        '"é"',
    ),
    *("[]", "{}", "[[]]", '[null, 1, "a"]', '{"a": {}}', "[" * 3000 + "]" * 3000, f'"{"x" * 5000}"', '"../../x"'),
    *('"/etc/hosts"', '"."', '""', "٣", '"٣"', '"²"', '"-0"', '"1e5"', '"nan"', '"None"', '"<image>"', '"\\u202e"'),
)
"""JSON that stands where something else is wanted."""
BYTES = (
    *(b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\t", b'"', b"\\", b"{", b"}", b"[", b"]", b","),
    *(b":", b"\xed\xa0\x80", b"\x1b[31m", b"=", b"'", b"  ", b"1e999", b"null", b"\\ud800", b"\xe2\x80\xa8"),
)
PREDICTIONS = ("yes", "", "A", "The answer is B.", "é\x00\n\t")


def damaged(folder: Path, draw: random.Random) -> None:
    """Change one to three files of a folder."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return
        texts = [path for path in files if path.suffix in (".json", ".tsv", ".txt")]
        path = draw.choice(texts or files) if draw.random() < 0.85 else draw.choice(files)
        draw.choice(DAMAGES)(path, draw)


def _bytes(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = draw.randrange(len(content) + 1)
        kind = draw.randrange(4)
        if kind == 0:
            content[at:at] = draw.choice(BYTES) * draw.choice((1, 1, 3))
        elif kind == 1:
            del content[at : at + draw.choice((1, 2, 20))]
        elif kind == 2 and at < len(content):
            content[at] = draw.randrange(256)
        else:
            content[at:at] = content[at : at + draw.choice((3, 40, 400))]
    path.write_bytes(bytes(content))


def _cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content) + 1)])


def _gone(path: Path, draw: random.Random) -> None:
    path.unlink()
    if draw.random() < 0.5:
        path.mkdir()


def _replaced(path: Path, draw: random.Random) -> None:
    path.write_text(draw.choice(VALUES), encoding="utf-8")


def _value(path: Path, draw: random.Random) -> None:
    """Put something else in the place of a value, a key or a cell."""
    text = path.read_bytes().decode("utf-8", "replace")
    if path.suffix in {".tsv", ".txt"}:
        cells = text.split("\t")
        cells[draw.randrange(len(cells))] = draw.choice(VALUES).strip('"')
        path.write_text("\t".join(cells), encoding="utf-8", newline="")
        return
    lines = text.split("\n")
    at = draw.randrange(len(lines))
    key, colon, _ = lines[at].partition(": ")
    comma = "," if lines[at].endswith(",") else ""
    lines[at] = f"{key}{colon}{draw.choice(VALUES)}{comma}" if colon else f"{draw.choice(VALUES)}{comma}"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")


def _lines(path: Path, draw: random.Random) -> None:
    """Take a line out, twice, or elsewhere."""
    lines = path.read_bytes().split(b"\n")
    line = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.choice((0, 1, 2))):
        lines.insert(draw.randrange(len(lines) + 1), line)
    path.write_bytes(b"\n".join(lines))


Damage = Callable[[Path, random.Random], None]

DAMAGES: tuple[Damage, ...] = (*[_bytes] * 2, *[_value] * 3, _cut, *[_lines] * 2, _gone, _replaced)


@cache
def _synthetic(name: str) -> Path:
    """A folder of a benchmark that makes its own questions, and writes where the things in them are."""
    folder = Path(tempfile.mkdtemp(prefix="headwise-fuzz-"), name)
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    benchmark(name).prepare(folder, 6, 0)
    return folder


def attempt(seed: int, root: Path) -> str | None:
    """Damage a folder of some benchmark and read it; None where that went well, else what went wrong.

    Well is one sentence, or questions that can be asked, shown and scored.
    """
    draw = random.Random(f"benchmark files {seed}")
    name = draw.choice((*sorted(WRITERS), *SYNTHETIC))
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    if name in SYNTHETIC:
        shutil.copytree(_synthetic(name), folder)
    else:
        WRITERS[name](folder)
    damaged(folder, draw)
    beside, begun = sorted(root.iterdir()), time.monotonic()
    try:
        wrong = _read(name, folder, draw)
    except DataError as error:
        wrong = f"a sentence of several lines: {error}" if "\n" in str(error) else None
    except Exception as error:
        wrong = f"{type(error).__name__}: {str(error)[:200]}"
    if time.monotonic() - begun > LONGEST:
        wrong = "it took too long"
    if sorted(root.iterdir()) != beside:
        wrong = "it wrote beside its folder"
    return None if wrong is None else f"seed {seed}, {name}: {wrong}"


def _read(name: str, folder: Path, draw: random.Random) -> str | None:
    asked = benchmark(name)
    questions = asked.load(folder, draw.choice((None, None, 1, 4)))
    if len({question.id for question in questions}) != len(questions):
        return "two questions have one id"
    for question in questions:
        json.dumps(attrs.asdict(question), default=str, ensure_ascii=False).encode()
        if not _is_sound(question):
            return f"no question: {question}"
        check(question.image)
    answered = [question for question in questions if question.answers]
    if not answered:
        return None
    said = [draw.choice(PREDICTIONS) for _ in answered]
    scores = [asked.score(question, prediction) for question, prediction in zip(answered, said, strict=True)]
    figures = [*scores, *asked.units(answered, scores).values(), *asked.metrics(answered, said).values()]
    return None if all(map(math.isfinite, figures)) else "a figure that is not finite"


def _is_sound(question: Question) -> bool:
    texts = (question.id, question.unit, question.text, question.kind, *question.answers)
    return all(isinstance(text, str) for text in texts) and question.image.is_file()
