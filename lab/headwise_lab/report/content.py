"""Everything a report says, gathered once; the Markdown and the HTML page only set it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise_lab.records import read_records
from headwise_lab.report import tables, verdicts
from headwise_lab.report.comparison import Comparison, compare
from headwise_lab.report.figures import Figure
from headwise_lab.report.grid import Grid
from headwise_lab.report.trials import Trial, benchmark_of, load_units


@attrs.frozen(eq=False)
class Section:
    """One comparison: its tables, and where it does best."""

    comparison: Comparison
    scores: Grid
    differences: Grid
    wins: Grid
    overlap: Grid | None
    figures: tuple[Figure, ...] = ()

    @property
    def verdicts(self) -> list[str]:
        """One sentence per budget."""
        return verdicts.recommendations(self.comparison)

    @property
    def best(self) -> list[str]:
        """The best configurations, in words."""
        digits = self.comparison.digits
        return [
            f"Token={row.budget}, Head={row.head_label}, Strategy={name} → {cell.value:.{digits}f}"
            for row, name, cell in self.comparison.peak()
        ]


@attrs.frozen(eq=False)
class Content:
    """A whole report."""

    title: str
    trials: tuple[Trial, ...]
    sections: tuple[Section, ...]
    total_wins: Grid | None
    others: tuple[Grid, ...]
    records: Grid
    warnings: tuple[str, ...]
    method: str = verdicts.METHOD

    @property
    def comparisons(self) -> list[Comparison]:
        """The comparisons of all sections."""
        return [section.comparison for section in self.sections]

    def grids(self) -> list[Grid]:
        """Every table but the records, in the order of the report."""
        own = [
            grid
            for section in self.sections
            for grid in (section.scores, section.differences, section.wins, section.overlap)
            if grid is not None
        ]
        return [*own, *([self.total_wins] if self.total_wins else []), *self.others]


def gather(folder: Path, title: str | None = None) -> Content:
    """Read an output folder; raises DataError where there is nothing to report on."""
    raw, warnings = read_records(folder)
    trials, told = load(folder, raw)
    comparisons = compare(trials)
    sections = tuple(_section(comparison) for comparison in comparisons)
    total = tables.wins(verdicts.total_wins(comparisons), "Wins over all tables", "wins") if len(sections) > 1 else None
    others = (
        tables.references(trials),
        tables.efficiency(trials) if trials else None,
        tables.failures(raw),
    )
    return Content(
        title=title or f"Headwise report: {folder.resolve().name}",
        trials=tuple(trials),
        sections=sections,
        total_wins=total,
        others=tuple(grid for grid in others if grid is not None),
        records=tables.records(trials),
        warnings=(*warnings, *told),
    )


def load(folder: Path, raw: Sequence[Mapping[str, Any]]) -> tuple[list[Trial], list[str]]:
    """Trials of the records that have a result, their outcomes read; and warnings about those that could not be."""
    trials = [Trial(record) for record in raw if not record.get("error")]
    benchmarks = {name: benchmark_of(name) for name in {trial.benchmark for trial in trials}}
    warnings = [load_units(trial, folder, benchmarks[trial.benchmark]) for trial in trials]
    return trials, [warning for warning in warnings if warning]


def _section(comparison: Comparison) -> Section:
    return Section(
        comparison=comparison,
        scores=tables.scores(comparison),
        differences=tables.differences(comparison),
        wins=tables.wins(comparison.wins(), f"{comparison.title}: wins", f"{comparison.slug}-wins"),
        overlap=tables.overlap(comparison),
    )
