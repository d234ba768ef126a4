"""Plain text of docstrings and help as Markdown, and Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
_ROLE = re.compile(r":(?:class|func|meth|mod):(`[^`]+`)")
_MARKUP = re.compile(r"([*_<>|\[\]#])")


def prose(text: str) -> str:
    """Markdown that shows a docstring as it was written: what is not code loses no letter to markup."""
    parts = _CODE.split(_ROLE.sub(r"\1", text))
    return "".join(part if number % 2 else _MARKUP.sub(r"\\\1", part) for number, part in enumerate(parts))


def cell(text: str) -> str:
    """One line for a cell of a table."""
    parts = _CODE.split(prose(" ".join(text.split())))
    return "".join(part.replace("|", r"\|") if number % 2 else part for number, part in enumerate(parts))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def indented(text: str) -> str:
    """Four blanks in front of every line that is not empty."""
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
