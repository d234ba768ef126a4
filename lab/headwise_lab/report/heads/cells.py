"""Cells and rows of a table of head selection. A cell is one strategy at one budget and head rule."""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping
from typing import Any

import attrs

from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import BETTER, Difference

BASELINE = "sum (all heads)"
CONTROL = "random (control)"


@attrs.frozen(eq=False)
class Cell:
    """One strategy at one budget and head count; several seeds of the same strategy are pooled.

    ``value`` and ``se`` are in the benchmark's scale, over ``n`` units of ``seeds`` seeds. ``against_baseline`` and
    ``against_control`` are paired differences at an equal budget, corrected for all comparisons of the table.
    """

    trials: tuple[Trial, ...]
    value: float
    se: float
    n: int
    units: Mapping[Any, float]
    role: str = "strategy"
    against_baseline: Difference | None = None
    against_control: Difference | None = None
    best: bool = False
    seeds: int = 1

    @property
    def adjusted(self) -> float | None:
        """Corrected probability of the difference to the baseline."""
        return self.against_baseline.adjusted if self.against_baseline else None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no difference`` to the baseline; empty where nothing can be compared."""
        return self.against_baseline.verdict if self.against_baseline else ""

    @property
    def recommended(self) -> bool:
        """Whether it is better than all heads and also better than as many heads drawn at random."""
        return (
            self.role == "strategy"
            and self.verdict == BETTER
            and self.against_control is not None
            and self.against_control.verdict == BETTER
        )


@attrs.frozen(eq=False)
class HeadRow:
    """One budget and head rule: column name -> cell."""

    budget: str
    heads: str
    processed: float
    cells: Mapping[str, Cell]

    @property
    def mean_heads(self) -> float | None:
        """Mean of the heads kept, over the trials of this head rule; the baseline in the row is left out."""
        own = [trial for cell in self.cells.values() for trial in cell.trials if trial.heads == self.heads]
        means = [mean for trial in own if (mean := trial.record.heads.mean) is not None]
        return plain.fmean(means) if means else None

    @property
    def all_heads(self) -> float:
        """How many heads the model has; 0 where no record says."""
        return max((trial.record.heads.of or 0 for cell in self.cells.values() for trial in cell.trials), default=0)

    @property
    def head_label(self) -> str:
        """``all``, the fixed count, or the name of the rule and the mean number of heads it kept."""
        if self.heads == "all" or self.heads.isdigit() or self.mean_heads is None:
            return self.heads
        return f"{self.heads.partition(':')[0]} ({self.mean_heads:.1f})"

    @property
    def best(self) -> tuple[str, ...]:
        """Columns with the best printed value; several where they tie."""
        return tuple(name for name, cell in self.cells.items() if cell.best)
