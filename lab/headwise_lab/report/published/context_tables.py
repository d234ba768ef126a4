"""Reads tables of perplexity by effective context, in the layout of the head-aware cache study and of our KV tables.

A table has a column for the configuration, one for the perplexity and one for the effective context; accuracy and a
stated change ("vs NAME") are optional. The same run may stand in several tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import attrs

from headwise.errors import DataError, HeadwiseError
from headwise.reading import shortened
from headwise.text import StrategyText
from headwise_lab.report.kv.runs import FULL, HEAD_AWARE, PERMUTED, TWIN, UNIFORM, WINDOW, part_of
from headwise_lab.report.published.score_tables import cells_of, plain

_COLUMNS = {
    "name": ("配置", "config", "configuration"),
    "ppl": ("ppl", "perplexity"),
    "context": ("eff.ctx", "eff. ctx", "ctx", "context", "effective context"),
    "accuracy": ("accuracy", "acc", "准确率"),
    "strategy": ("strategy",),
}
_NEEDED = ("name", "ppl", "context")
_RULE = re.compile(r":?-{3,}:?")
_FIGURE = re.compile(r"(?P<figure>-?\d+(?:\.\d+)?)\s*%?(?:\s*±\s*(?P<error>[\d.]+|-))?[\s%≈↑↓★✓✗]*")
_VERSUS = re.compile(r"vs\.?\s+(?P<name>\S+)", re.IGNORECASE)
_CHANGE = re.compile(r"(?P<change>[+-]\d+(?:\.\d+)?)\s*%.*")


@attrs.frozen
class ContextRow:
    """One line of a table, its figures exactly as printed. ``stated``: the change in per cent that it claims."""

    name: str
    part: str
    ppl: Decimal
    context: Decimal
    line: int
    accuracy: Decimal | None = None
    error: bool = False
    stated: Decimal | None = None


@attrs.frozen
class ContextTable:
    """A table. ``versus``: the run to which its stated changes are."""

    line: int
    rows: tuple[ContextRow, ...]
    versus: str = ""


def context_tables(text: str, source: str) -> list[ContextTable]:
    """All such tables of a document; raises DataError, with ``source`` and line, for a figure that is no number."""
    lines = text.splitlines()
    found = []
    for start, line in enumerate(lines):
        header = [plain(cell) for cell in cells_of(line)]
        columns = _columns(header)
        if columns and start + 1 < len(lines) and all(map(_RULE.fullmatch, cells_of(lines[start + 1]) or ["x"])):
            found.append(_table(header, columns, lines, start, source))
    return found


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Known column -> its place; empty where a needed column is missing."""
    lowered = [name.lower() for name in header]
    found = {
        key: next(at for at, name in enumerate(lowered) if name in names)
        for key, names in _COLUMNS.items()
        if any(name in names for name in lowered)
    }
    return found if all(key in found for key in _NEEDED) else {}


def _table(
    header: Sequence[str], columns: dict[str, int], lines: Sequence[str], start: int, source: str
) -> ContextTable:
    versus = next(((at, match["name"]) for at, name in enumerate(header) if (match := _VERSUS.fullmatch(name))), None)
    rows = []
    for number in range(start + 2, len(lines)):
        found = cells_of(lines[number])
        if not found:
            break
        where = f"{source}:{number + 1}"
        if len(found) != len(header):
            raise DataError(f"{where}: {len(found)} cells in a table of {len(header)} columns")
        stated = _CHANGE.fullmatch(plain(found[versus[0]])) if versus else None
        row = _row(found, columns, number + 1, where)
        rows.append(attrs.evolve(row, stated=Decimal(stated["change"]) if stated else None))
    return ContextTable(start + 1, tuple(rows), versus[1] if versus else "")


def _row(found: Sequence[str], columns: dict[str, int], line: int, where: str) -> ContextRow:
    label = plain(found[columns["name"]])
    name = re.split(r"\s*[(（]", label)[0].strip()
    ppl, error = _figure(found[columns["ppl"]], where)
    context, _ = _figure(found[columns["context"]], where)
    accuracy = found[columns["accuracy"]] if "accuracy" in columns else "-"
    strategy = found[columns["strategy"]] if "strategy" in columns else ""
    return ContextRow(
        name=name,
        part=_part(label, plain(strategy)),
        ppl=ppl,
        context=context,
        line=line,
        accuracy=_figure(accuracy, where)[0] if accuracy.strip() not in ("", "-") else None,
        error=error,
    )


def _figure(cell: str, where: str) -> tuple[Decimal, bool]:
    match = _FIGURE.fullmatch(plain(cell))
    if match is None:
        raise DataError(f"{where}: {shortened(cell)!r} is no figure")
    return Decimal(match["figure"]), match["error"] not in (None, "-")


def _part(label: str, strategy: str) -> str:
    """The part of a run, from its strategy text where there is one, else from its name."""
    if strategy:
        try:
            return part_of(StrategyText.parse(strategy))
        except HeadwiseError:
            pass  # a column of that name may hold anything
    lowered = label.lower()
    if "permuted" in lowered or "shuffled" in lowered:
        return PERMUTED
    if "streaming" in lowered:
        return UNIFORM
    if "uniform" in lowered or lowered.startswith("k_"):
        return TWIN
    if lowered.startswith(("full", "none")):
        return FULL
    return WINDOW if "window" in lowered else HEAD_AWARE
