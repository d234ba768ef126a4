"""Text for a terminal: names and messages come from files and plugins, and nothing but letters of them may arrive.

Escape sequences, carriage returns, marks that turn or hide letters, and halves of surrogate pairs are spelled out as
JSON spells them (``\\u001b``), so that JSON stays the same value. Everything that headwise prints goes through ``say``,
or through ``headwise_lab.terminal`` where it has colours.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import TextIO
from unicodedata import category

import typer

_SPELLED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_PLAIN = re.compile(r"[ -~\n\t]*")


def printable(text: str) -> str:
    """Text without anything that a terminal obeys, or does not show; line feeds and tabs stay."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        _spelled(letter) if category(letter) in _SPELLED and letter not in "\n\t" else letter for letter in text
    )


def _spelled(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def say(text: str = "", *, err: bool = False, set_already: bool = False) -> None:
    """Print a line or more, on the error stream if ``err``.

    On a terminal, a line that is longer than it is wide goes on below its beginning. ``set_already``: the lines stay as
    they are; they are printable text and typer's styles, or somebody will copy them.
    """
    stream = sys.stderr if err else sys.stdout
    typer.echo(text if set_already else fitted(printable(text), columns(stream)), file=stream)


def coloured(text: str, colour: str | None = None) -> str:
    """Printable text in a colour, or bold without one; as it is where ``NO_COLOR`` is set or the terminal is dumb."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return typer.style(text, fg=colour, bold=colour is None)


def columns(stream: TextIO | None) -> int | None:
    """How wide a terminal is; None for what is none, such as a file or a pipe, whose lines are for programs."""
    return shutil.get_terminal_size().columns if stream is not None and stream.isatty() else None


def fitted(text: str, width: int | None) -> str:
    """Text whose lines are at most ``width`` letters long, as far as words let them; as it is where that is None."""
    if width is None:
        return text
    return "\n".join(hanging(line, width) if len(line) > width else line for line in text.split("\n"))


def hanging(line: str, width: int, *, indent: int | None = None) -> str:
    """A line in lines of at most ``width`` letters, the later ones indented; words stay whole.

    Without an ``indent``, that is where the second column of the line begins, if it has one and there is room for it.
    """
    start = len(line) - len(line.lstrip())
    if indent is None:
        column = _COLUMN.match(line)
        indent = column.end() if column and column.end() <= width // 2 else start + 2
    lines = textwrap.wrap(
        line[start:],
        width,
        initial_indent=line[:start],
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


_COLUMN = re.compile(r" *\S+(?: \S+)*  +(?=\S)")
"""What stands before the second column: words with single spaces, and two spaces or more."""
