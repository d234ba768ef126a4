"""The page about papers and their code: what the strategies' own files say where headwise had to choose."""

from __future__ import annotations

import re

from headwise_site import strategy_pages
from headwise_site.text import prose

_TOLD = re.compile(
    r"(paper|published|authors)'?s? (code|\w+ code)|kvpress|the (study|paper|code|authors)\b", re.IGNORECASE
)

_ABOUT = """# Papers and their code

The code that comes with a paper often does something else than its text says, other implementations do a third thing,
and comparison tables count a budget in several ways. Headwise compares methods on [one budget](budgets.md); whatever
else it had to choose is told in the file of the strategy. This page collects the paragraphs that speak of papers and of
code.
"""


def pages() -> dict[str, str]:
    """Path -> text."""
    parts = [_ABOUT]
    for kind, listed in strategy_pages.shipped().items():
        told = [(row.name, _paragraphs(row)) for row in listed]
        sections = [f"### {name}\n\n{text}\n\n[{name}](../{_path(kind, name)})" for name, text in told if text]
        parts += [f"## {strategy_pages.TITLES[kind]}", *sections] if sections else []
    return {"explanation/papers.md": "\n\n".join(parts) + "\n"}


def _path(kind: str, name: str) -> str:
    return f"{strategy_pages.FOLDER}/{kind}/{name}.md"


def _paragraphs(row: strategy_pages.Row) -> str:
    module, own = strategy_pages.documentation(row)
    return "\n\n".join(prose(part) for part in f"{own}\n\n{module}".split("\n\n") if _TOLD.search(part))
