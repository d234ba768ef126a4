"""The conclusion on head selection: whether any choice of heads beats all heads and as many heads drawn at random."""

from __future__ import annotations

from collections.abc import Sequence

from headwise_lab.report.conclusions import left_open, tally
from headwise_lab.report.heads.comparison import Cell, Comparison, HeadRow
from headwise_lab.report.page.facts import signed
from headwise_lab.stats.differences import BETTER, SAME, WORSE

Entry = tuple[Comparison, HeadRow, str, Cell]


def conclusion(comparisons: Sequence[Comparison]) -> str:
    """All tables in two sentences; empty where nothing is paired with all heads."""
    found = [
        (comparison, row, name, cell)
        for comparison in comparisons
        for row, name, cell in comparison.cells()
        if cell.role == "strategy" and cell.verdict
    ]
    if not found:
        return ""
    settings = {(comparison.slug, row.budget) for comparison, row, _, _ in found}
    helped = [entry for entry in found if entry[3].recommended]
    counted = _counted([cell for *_, cell in found])
    tables = [[pair for *_, cell in one.cells() if (pair := cell.against_baseline)] for one in comparisons]
    open_ones = left_open(tables) if "no difference" in counted else ""
    return " ".join([_lead(helped, len(settings)), *([f"{counted}{open_ones}."] if counted else [])])


def _lead(helped: Sequence[Entry], settings: int) -> str:
    where = f"{settings} combinations of benchmark and budget" if settings > 1 else "the budget that was run"
    if not helped:
        at = "at any of the" if settings > 1 else "at"
        return f"No choice of heads beats both all heads and as many random heads, {at} {where}."
    count = len({(comparison.slug, row.budget) for comparison, row, _, _ in helped})
    comparison, row, name, cell = max(helped, key=lambda entry: _gain(entry[3]))
    at = f"at {count} of {where}" if settings > 1 else f"at {where}"
    return (
        f"Choosing heads beats all heads, and as many random heads, {at}. Largest gain: {name} with {row.head_label}"
        f" heads, {signed(cell.against_baseline, 1)} on {comparison.title} at {row.budget}."
    )


def _gain(cell: Cell) -> float:
    return cell.against_baseline.value if cell.against_baseline else 0.0


def _counted(cells: Sequence[Cell]) -> str:
    worse, same = (sum(cell.verdict == verdict for cell in cells) for verdict in (WORSE, SAME))
    half = sum(cell.verdict == BETTER and not cell.recommended for cell in cells)
    return tally(
        len(cells),
        "choices",
        (half, "is better than all heads only", "are better than all heads only"),
        (worse, "is worse than all heads", "are worse than all heads"),
        (same, "shows no difference", "show no difference"),
    )
