"""What the evidence carries, in plain sentences; nothing is recommended that it does not carry."""

from __future__ import annotations

from collections.abc import Sequence

from headwise_lab.report.comparison import BASELINE, CONTROL, Cell, Comparison, Row
from headwise_lab.report.statistics import CLEAR, FEWEST, Difference

MOST_NAMED = 5
"""Strategies a sentence names before it counts the rest."""


def recommendations(comparison: Comparison) -> list[str]:
    """One sentence per budget of a table, and another where head selection did harm."""
    budgets = dict.fromkeys(row.budget for row in comparison.rows)
    sentences = (told for budget in budgets for told in (_at_budget(comparison, budget), _harm(comparison, budget)))
    return [sentence for sentence in sentences if sentence]


def _harm(comparison: Comparison, budget: str) -> str:
    """What is worse than all heads by two standard errors, worst first; nothing where nothing is."""
    worse = [
        (cell.against_baseline.value, f"{name} with {row.head_label} heads ({signed(cell.against_baseline)})")
        for row in comparison.rows
        if row.budget == budget
        for name, cell in row.cells.items()
        if cell.verdict == "worse" and cell.against_baseline is not None
    ]
    told = [text for _, text in sorted(worse)]
    if not told:
        return ""
    more = f"; and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
    return f"{comparison.title}, {budget}: worse than all heads: {'; '.join(told[:MOST_NAMED])}{more}."


def _at_budget(comparison: Comparison, budget: str) -> str:
    rows = [row for row in comparison.rows if row.budget == budget]
    where = f"{comparison.title}, {budget}"
    if not any(BASELINE in row.cells for row in rows):
        return f"{where}: there is no run of `sum` over all heads to compare with, so nothing is recommended."
    entries = [(row, name, cell) for row in rows for name, cell in row.cells.items() if cell.role == "strategy"]
    if not entries:
        return f"{where}: only the baseline was run, so nothing is compared."
    if all(cell.against_baseline is None for _, _, cell in entries):
        return f"{where}: the outcomes needed for pairs are missing, so nothing is recommended."
    carried = [entry for entry in entries if entry[2].recommended]
    if carried:
        carried.sort(key=lambda entry: -_gain(entry[2]))
        return f"{where}: recommended: {'; '.join(_reason(*entry) for entry in carried)}."
    return f"{where}: no strategy beats all heads{_near_miss(rows, entries)}."


def _gain(cell: Cell) -> float:
    return cell.against_baseline.value if cell.against_baseline else 0.0


def _reason(row: Row, name: str, cell: Cell) -> str:
    return (
        f"{name} with {row.head_label} heads ({signed(cell.against_baseline)} against all heads,"
        f" {signed(cell.against_control)} against random heads)"
    )


def _near_miss(rows: Sequence[Row], entries: Sequence[tuple[Row, str, Cell]]) -> str:
    """Why a strategy that looks better is not recommended: the correction, or the random control."""
    better = [cell for _, _, cell in entries if cell.verdict == "better"]
    if not better:
        return ""
    if not any(CONTROL in row.cells for row in rows):
        return f" as far as can be said: {len(better)} looked better, but no random-heads control was run"
    if all(cell.against_control is None for cell in better):
        return f" as far as can be said: {len(better)} looked better, but no random control keeps about as many heads"
    return (
        f" once the table's comparisons are corrected for and random heads are beaten too"
        f" ({len(better)} of {len(entries)} looked better by {CLEAR:g} SE alone)"
    )


def signed(difference: Difference | None, digits: int = 2) -> str:
    """``+1.20 ± 0.35``, or ``-`` where there is nothing to compare."""
    if difference is None:
        return "-"
    return f"{difference.value:+.{digits}f} ± {difference.se:.{digits}f}"


def total_wins(comparisons: Sequence[Comparison]) -> dict[str, tuple[int, int]]:
    """Wins and sole wins over several tables, most wins first."""
    totals: dict[str, tuple[int, int]] = {}
    for comparison in comparisons:
        for name, (wins, sole) in comparison.wins().items():
            before = totals.get(name, (0, 0))
            totals[name] = (before[0] + wins, before[1] + sole)
    return dict(sorted(totals.items(), key=lambda item: (-item[1][0], -item[1][1], item[0])))


METHOD = (
    f"Differences are paired: the same questions, strategy minus `sum` over all heads, with the standard error of the"
    f" mean difference. Below {CLEAR:g} standard errors (or with fewer than {FEWEST} pairs) a difference is called no"
    f" difference and set in grey. A strategy is recommended only where its gain over all heads stays at {CLEAR:g}"
    f" standard errors after Holm's correction over all comparisons of its table, and where it also beats as many heads"
    f" drawn at random by {CLEAR:g} standard errors. Bold marks the best figure of a row as printed; ties are all"
    f" bold and count as a win for each. A best figure picked from many is biased upwards, so a win by itself is no"
    f" evidence."
)
"""How to read the report, in one paragraph."""
