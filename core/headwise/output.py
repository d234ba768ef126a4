"""What a command prints: under ``--json`` one object on standard output, and whatever else is printed beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

import typer

from headwise.printing import columns, fitted, printable

_kept: list[TextIO] = []
"""Standard output, while everything but a command's own answer goes to standard error."""


@contextmanager
def answer_alone() -> Iterator[None]:
    """Send what anybody prints to standard error, except what ``answer`` is given."""
    _kept.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
        _kept[-1].flush()
    finally:
        _kept.pop()


def answer(text: str) -> None:
    """Print what a command was asked for, with a line end."""
    if _kept:
        typer.echo(printable(text), file=_kept[-1])
    else:
        typer.echo(fitted(printable(text), columns(sys.stdout)))


def end_with(*, whole: bool) -> None:
    """End a command with status 1, by raising Exit, where something is not as it should be."""
    if not whole:
        raise typer.Exit(1)
