"""The claims of a document about its KV tables, checked: stated changes, ranges, and comparisons of unequal budgets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import attrs

from headwise_lab.report.kv.baseline import same_context
from headwise_lab.report.kv.runs import UNIFORM, WINDOW
from headwise_lab.report.published.context_tables import ContextRow, ContextTable

_RANGE = re.compile(r"\+?(?P<low>\d+(?:\.\d+)?)\s*%\s*(?:-|–|~|to|到|\.\.)\s*\+?(?P<high>\d+(?:\.\d+)?)\s*%")
_BETTER = re.compile(r"(?:好|优于?|better by)\s*(?P<zh>\d+(?:\.\d+)?)\s*%|(?P<en>\d+(?:\.\d+)?)\s*%\s*(?:better|lower)")


@attrs.frozen
class CheckedClaims:
    """Sentences: on claims that do not hold as they are written (``differences``), on those that do (``holding``)."""

    differences: tuple[str, ...]
    holding: tuple[str, ...]


def context_claims(
    text: str, tables: Sequence[ContextTable], runs: Sequence[ContextRow], matched: Mapping[str, float]
) -> CheckedClaims:
    """Check all claims of a known form. ``matched``: run -> per cent against the uniform budget at its own context."""
    by_name = {row.name: row for row in runs}
    differences = [sentence for table in tables for sentence in _versus(table, by_name, matched)]
    holding: list[str] = []
    for (what, holds), lines in _prose(text, by_name, matched).items():
        told = f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}: {what}"
        (holding if holds else differences).append(told)
    return CheckedClaims(tuple(differences), tuple(holding))


def change(ours: ContextRow, theirs: ContextRow) -> Decimal:
    """The change of perplexity from theirs to ours, in per cent."""
    return 100 * (ours.ppl / theirs.ppl - 1)


def same_budget(ours: ContextRow, theirs: ContextRow) -> bool:
    """Whether two rows have the same mean budget."""
    return same_context(float(ours.context), float(theirs.context))


def _versus(table: ContextTable, by_name: Mapping[str, ContextRow], matched: Mapping[str, float]) -> list[str]:
    """Sentences on changes stated in a table that are computed wrongly, or that compare unequal budgets."""
    reference = by_name.get(table.versus)
    if reference is None:
        return []
    wrong = [
        f"line {row.line}: {row.name} is said to be {row.stated:+}% against {reference.name}, counted"
        f" {change(row, reference):+.2f}%"
        for row in table.rows
        if row.stated is not None and abs(change(row, reference) - row.stated) > half_unit(row.stated)
    ]
    unequal = [
        f"{row.name} {row.stated:+}% with {row.context} entries ({_at_equal(row.name, matched)})"
        for row in table.rows
        if row.stated is not None and not same_budget(row, reference)
    ]
    if unequal:
        wrong.append(
            f"line {table.line}: changes against {reference.name} ({reference.context} entries) are of runs with other"
            f" budgets: {'; '.join(unequal)}"
        )
    return wrong


def half_unit(figure: Decimal) -> Decimal:
    """Half a unit of the last digit printed: how far off a printed figure may be."""
    return Decimal((0, (5,), int(figure.as_tuple().exponent) - 1))


def _at_equal(name: str, matched: Mapping[str, float]) -> str:
    if name not in matched:
        return "no uniform run at its context"
    shown = f"{matched[name]:+.1f}"
    return f"{'0.0' if float(shown) == 0 else shown}% at equal context"


def _prose(
    text: str, by_name: Mapping[str, ContextRow], matched: Mapping[str, float]
) -> dict[tuple[str, bool], list[int]]:
    """(sentence, whether the claim holds) -> the lines that make it."""
    found: dict[tuple[str, bool], list[int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().startswith("|"):
            continue
        told = [_sink_range(line, list(by_name.values())), _better(line, by_name, matched)]
        for one in filter(None, told):
            found.setdefault(one, []).append(number)
    return found


def _sink_range(line: str, runs: Sequence[ContextRow]) -> tuple[str, bool] | None:
    """The claim ``53%-266%`` in a line about sinks: the smallest and largest rise without sinks at equal contexts."""
    match = _RANGE.search(line)
    uniform = {row.context: row for row in runs if row.part == UNIFORM}
    rises = sorted(change(row, uniform[row.context]) for row in runs if row.part == WINDOW and row.context in uniform)
    if match is None or "sink" not in line.lower() or not rises:
        return None
    stated = (Decimal(match["low"]), Decimal(match["high"]))
    counted = ", ".join(f"{rise:+.0f}%" for rise in rises)
    holds = all(
        abs(given - rise) <= half_unit(given) for given, rise in zip(stated, (rises[0], rises[-1]), strict=True)
    )
    verb = "holds" if holds else "does not hold"
    return f"without sinks perplexity is said to rise by {stated[0]}% to {stated[1]}%; counted {counted}: {verb}", holds


def _better(line: str, by_name: Mapping[str, ContextRow], matched: Mapping[str, float]) -> tuple[str, bool] | None:
    """The claim that A is 1.9% better than B, in any words that name A, B and the figure."""
    match = _BETTER.search(line)
    named = sorted(
        (line.find(name), name) for name in by_name if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", line)
    )
    if match is None or len(named) < 2:
        return None
    ours, theirs = (by_name[name] for _, name in named[:2])
    stated, counted = Decimal(match["zh"] or match["en"]), -change(ours, theirs)
    right = abs(counted - stated) <= half_unit(stated)
    told = f"{ours.name} is said to be {stated}% better than {theirs.name}, counted {counted:.2f}%"
    if same_budget(ours, theirs):
        return told, right
    return (
        f"{told}; the budgets differ ({ours.context} entries against {theirs.context}), and {ours.name} is"
        f" {_at_equal(ours.name, matched)}",
        False,
    )
