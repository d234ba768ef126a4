"""What was measured of a strategy: the rows that name it in ``benchmarks/RESULTS.md`` and in the findings."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import attrs

from headwise_site.text import table

ROOT = Path(__file__).parents[2]
_RESULTS, _METHODS = "benchmarks/RESULTS.md", "docs/findings/methods.md"
_LINKS = {_RESULTS: "../../../findings/results.md", _METHODS: "../../../findings/methods.md"}

_NOTES = ("accuracy, in the benchmark's scale",)

_CASES = {
    "window": "A_window_|full",
    "streaming": "B_streaming_|full",
    "head_windows": "[IJ]_pos|K_uniform|full",
    "confidence_windows": "G_conf|full",
    "allocated": "allocated_|full",
}
"""Strategy -> how the KV study calls its runs, and the full cache beside them."""


@attrs.frozen
class Table:
    """A Markdown table, and the headings above it."""

    path: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    """The paragraph below that says what the marks in it mean, if there is one."""

    def only(self, wanted: Callable[[str], object]) -> tuple[tuple[str, ...], ...]:
        """The rows whose first cell is wanted, below the head."""
        return tuple(row for row in self.rows[1:] if wanted(row[0].strip("*¹ ")))

    def told(self, head: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
        """A part of the table, under a line that says where the whole stands."""
        return f"{', '.join(self.headings)} ([whole table]({_LINKS[self.path]})):\n\n{table(head, rows)}\n{self.note}"


def of(kind: str, name: str) -> list[str]:
    """Markdown tables of what was measured of one strategy or recipe; empty where nothing was."""
    if kind in ("recipe", "token_pruning"):
        return _by_row(lambda cell: cell in (name, "unpruned"), name, ("Published methods", "Every visual method"))
    if kind == "kv_eviction":
        told = _by_row(lambda cell: re.split("[:( ]", cell)[0] == name, name, ("KV eviction",))
        cases = _CASES.get(name)
        return told + (_by_row(lambda cell: re.match(cases, cell), cases, ("The KV study",)) if cases else [])
    studies = {"head_scoring": "Study A", "query_selection": "Study B"}
    return _by_column(name, studies[kind]) if kind in studies else []


def _by_row(wanted: Callable[[str], object], name: str, sections: tuple[str, ...]) -> list[str]:
    """Parts of tables with rows for a strategy, beside those for the unpruned model or the full cache."""
    under = [one for one in tables() if one.headings[0].startswith(sections)]
    found = [(one, one.only(wanted)) for one in under]
    return [one.told(one.rows[0], rows) for one, rows in found if _names(rows, name)]


def _names(rows: tuple[tuple[str, ...], ...], name: str) -> bool:
    return any(re.match(rf"({name})\b|{name}", row[0].strip("*¹ ")) for row in rows)


def _by_column(name: str, study: str) -> list[str]:
    """Columns for a strategy, beside those that say what was run and the two baselines."""
    own = "random (control)" if name == "random" else name
    told = []
    for one in tables():
        head = one.rows[0]
        if one.headings[0].startswith(study) and own in head:
            kept = [
                n for n, column in enumerate(head) if n < 2 or column in ("sum (all heads)", "random (control)", own)
            ]
            rows = [[row[n] for n in kept] for row in _filled(one.rows[1:])]
            told.append(one.told(tuple(head[n] for n in kept), tuple(tuple(row) for row in rows if row[-1] != "-")))
    return told


def _filled(rows: tuple[tuple[str, ...], ...]) -> list[tuple[str, ...]]:
    """An empty first cell means the one above."""
    filled: list[tuple[str, ...]] = []
    for row in rows:
        filled.append((row[0] or filled[-1][0], *row[1:]) if filled else row)
    return filled


@cache
def tables() -> tuple[Table, ...]:
    """All tables of both files, in their order."""
    return tuple(one for path in (_METHODS, _RESULTS) for one in _tables(path))


def _cells(line: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"(?<!\\)\|", line.strip()[1:-1]))


def _tables(path: str) -> list[Table]:
    """The headings of a table are those above it but the page's own title, which opens the findings' page alone."""
    found: list[Table] = []
    headings: list[str] = []
    rows: list[tuple[str, ...]] = []
    for line in [*(ROOT / path).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append(_cells(line))
        elif rows:
            found.append(Table(path, tuple(headings), (rows[0], *rows[2:])))
            rows = []
        elif line.startswith(_NOTES) and found:
            found[-1] = attrs.evolve(found[-1], note=line)
        if heading := re.match(r"(#+) (.+)", line):
            level = max(0, len(heading[1]) - (1 if path == _METHODS else 2))
            headings = [*headings[:level], heading[2]]
    return found
