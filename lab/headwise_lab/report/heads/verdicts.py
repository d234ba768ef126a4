"""The findings on head selection in sentences. Only what the tests show is recommended."""

from __future__ import annotations

from collections.abc import Sequence

from headwise_lab.report.heads.comparison import CONTROL, Cell, Comparison, HeadRow
from headwise_lab.report.matching import TOLERANCE
from headwise_lab.report.page.facts import signed
from headwise_lab.stats.differences import BETTER, LEVEL, WORSE
from headwise_lab.stats.rule import rule

MOST_NAMED = 5
"""A sentence names this many strategies and counts the rest."""


def recommendations(comparison: Comparison) -> list[str]:
    """A sentence for each budget of a table, and another one where some head selection is worse than all heads."""
    budgets = dict.fromkeys(row.budget for row in comparison.rows)
    sentences = (line for budget in budgets for line in (_at_budget(comparison, budget), _harm(comparison, budget)))
    return [sentence for sentence in sentences if sentence]


def _harm(comparison: Comparison, budget: str) -> str:
    """What is worse than all heads, the worst first; empty where nothing is."""
    worse = [
        (cell.against_baseline.value, f"{name} with {row.head_label} heads ({signed(cell.against_baseline)})")
        for row in comparison.rows
        if row.budget == budget
        for name, cell in row.cells.items()
        if cell.verdict == WORSE and cell.against_baseline is not None
    ]
    named = [text for _, text in sorted(worse)]
    if not named:
        return ""
    more = f"; and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f"{comparison.title}, {budget}: worse than all heads: {'; '.join(named[:MOST_NAMED])}{more}."


def _at_budget(comparison: Comparison, budget: str) -> str:
    rows = [row for row in comparison.rows if row.budget == budget]
    where = f"{comparison.title}, {budget}"
    entries = [(row, name, cell) for row in rows for name, cell in row.cells.items() if cell.role == "strategy"]
    paired = any(cell.against_baseline for _, _, cell in entries)
    if not (paired or any(cell.role == "baseline" for row in rows for cell in row.cells.values())):
        return f"{where}: `sum` over all heads was run neither here nor on both sides of it, so nothing is recommended."
    if not entries:
        return f"{where}: only the baseline was run, so nothing is compared."
    if not paired:
        return f"{where}: the outcomes needed for pairs are missing, so nothing is recommended."
    recommended = [entry for entry in entries if entry[2].recommended]
    if recommended:
        recommended.sort(key=lambda entry: -_gain(entry[2]))
        return f"{where}: recommended: {'; '.join(_reason(*entry) for entry in recommended)}."
    return f"{where}: no strategy beats all heads{_near_miss(rows, entries)}."


def _gain(cell: Cell) -> float:
    return cell.against_baseline.value if cell.against_baseline else 0.0


def _reason(row: HeadRow, name: str, cell: Cell) -> str:
    return (
        f"{name} with {row.head_label} heads ({signed(cell.against_baseline)} against all heads,"
        f" {signed(cell.against_control)} against random heads)"
    )


def _near_miss(rows: Sequence[HeadRow], entries: Sequence[tuple[HeadRow, str, Cell]]) -> str:
    """Why strategies that look better are not recommended: there is no control, or p is too large once corrected."""
    better = [cell for _, _, cell in entries if cell.verdict == BETTER]
    seem = [cell for _, _, cell in entries if cell.against_baseline and cell.against_baseline.seems == BETTER]
    if better and not any(CONTROL in row.cells for row in rows):
        return f" as far as can be said: {len(better)} looked better, but no random-heads control was run"
    if better and all(cell.against_control is None for cell in better):
        return f" as far as can be said: {len(better)} looked better, but no random control keeps about as many heads"
    if not seem:
        return ""
    return (
        f" once the table's comparisons are corrected for and random heads are beaten too"
        f" ({len(seem)} of {len(entries)} looked better by themselves, p at most {LEVEL:g})"
    )


def total_wins(comparisons: Sequence[Comparison]) -> dict[str, tuple[int, int]]:
    """Wins and sole wins over several tables, most wins first."""
    totals: dict[str, tuple[int, int]] = {}
    for comparison in comparisons:
        for name, (wins, sole) in comparison.wins().items():
            before = totals.get(name, (0, 0))
            totals[name] = (before[0] + wins, before[1] + sole)
    return dict(sorted(totals.items(), key=lambda item: (-item[1][0], -item[1][1], item[0])))


PAIRED = (
    f"{rule()} All else is called no difference and set in grey. Scores are pooled over seeds. Only equal budgets are"
    f" compared: visual tokens processed per layer, averages at most {TOLERANCE:g} apart. Where the reference was not"
    f" run at a budget, it is interpolated question by question between its two neighbouring budgets, linearly in log2"
    f" of the processed average, with the unpruned model as the largest budget (marked ~); the interval is longer, and"
    f" p larger, by the error that leaving out neighbouring budgets shows; where nothing shows it, nothing is called"
    f" better or worse. Only differences to the unpruned model are across budgets: that is what pruning costs."
)
"""How differences are computed, and when one counts."""

METHOD = (
    f"Strategies are held against `sum` over all heads. {PAIRED} A strategy is recommended only where it is"
    f" better than all heads and also better than as many heads drawn at random. Bold marks the best figure of a row as"
    f" printed; ties are all bold and count as a win for each. A best figure picked from many is biased upwards, so a"
    f" win by itself is no evidence."
)
"""How to read the chapter on head selection, in one paragraph."""
