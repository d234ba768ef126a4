"""Text for a terminal: names and messages come from files and plugins, and nothing but letters of them may arrive.

Escape sequences, carriage returns, marks that turn or hide letters, and halves of surrogate pairs are spelled out as
JSON spells them (``\\u001b``), so that JSON stays the same value. Everything that headwise prints goes through ``say``,
or through ``headwise_lab.terminal`` where it has colours.
"""

from __future__ import annotations

import re
import sys
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


def say(text: str = "", *, err: bool = False, styled: bool = False) -> None:
    """Print a line or more, on the error stream if ``err``.

    ``styled``: it is made of printable text and typer's styles.
    """
    typer.echo(text if styled else printable(text), file=sys.stderr if err else sys.stdout)
