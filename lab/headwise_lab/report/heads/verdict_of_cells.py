"""The verdicts of a table: every cell is paired with baseline and control at its budget, and all are corrected."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from headwise_lab.report.correcting import with_corrected
from headwise_lab.report.heads.cells import BASELINE, CONTROL, Cell, HeadRow
from headwise_lab.report.matching import TOLERANCE, MatchedReference, ReferenceCurve
from headwise_lab.stats.differences import Difference, paired


def judge_rows(rows: Sequence[HeadRow], curve: ReferenceCurve, digits: int) -> list[HeadRow]:
    """Mark the best of each row, pair every cell with baseline and control, and correct over the whole table.

    ``curve``: the baseline at every budget at which it was run.
    """
    found = [_paired_cells(row, _baseline(row, curve), _control_for(row, rows), digits) for row in rows]
    cells = [cell for row in found for cell in row.cells.values()]
    judged = iter(with_corrected(cells, "against_baseline", "against_control"))
    return [attrs.evolve(row, cells={name: next(judged) for name in row.cells}) for row in found]


def _baseline(row: HeadRow, curve: ReferenceCurve) -> MatchedReference | None:
    """The baseline of the row itself, else the one at its budget; None where there is neither."""
    if BASELINE in row.cells:
        return MatchedReference(row.cells[BASELINE].units)
    trial = next((trial for cell in row.cells.values() for trial in cell.trials), None)
    return curve.at(trial) if trial is not None else None


def _control_for(row: HeadRow, rows: Sequence[HeadRow]) -> Cell | None:
    """The random heads of the row itself. For a rule that counts heads, those nearest in number, at most 1/8 off."""
    if CONTROL in row.cells or row.mean_heads is None:
        return row.cells.get(CONTROL)
    near = [
        (abs(other.mean_heads - row.mean_heads), other.cells[CONTROL])
        for other in rows
        if CONTROL in other.cells and other.mean_heads is not None and _equal(row, other)
    ]
    distance, control = min(near, key=lambda pair: pair[0], default=(math.inf, None))
    return control if distance <= row.all_heads / 8 else None


def _equal(row: HeadRow, other: HeadRow) -> bool:
    """Whether two rows have the same budget. Half the tolerance, since budgets of one method may be a token apart."""
    processed = bool(row.processed and other.processed)
    return row.budget == other.budget or (processed and abs(row.processed - other.processed) <= TOLERANCE / 2)


def _paired_cells(row: HeadRow, baseline: MatchedReference | None, control: Cell | None, digits: int) -> HeadRow:
    """The row with its best cells marked and its differences uncorrected."""
    top = max(round(cell.value, digits) for cell in row.cells.values())

    def to_baseline(cell: Cell) -> Difference | None:
        if baseline is None or cell.role == "baseline":
            return None
        return paired(cell.units, baseline.units, allowance=baseline.allowance, between=baseline.between)

    def to_control(cell: Cell) -> Difference | None:
        return paired(cell.units, control.units) if control is not None and cell.role == "strategy" else None

    cells = {
        name: attrs.evolve(
            cell,
            best=len(row.cells) > 1 and round(cell.value, digits) == top,
            against_baseline=to_baseline(cell),
            against_control=to_control(cell),
        )
        for name, cell in row.cells.items()
    }
    return attrs.evolve(row, cells=cells)
