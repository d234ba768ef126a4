"""Everything a report says, gathered once; the Markdown and the HTML page only set it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from headwise_lab.report.failures import failures
from headwise_lab.report.heads import tables, verdicts
from headwise_lab.report.heads.comparison import Comparison, compare
from headwise_lab.report.heads.efficiency import efficiency
from headwise_lab.report.heads.references import references
from headwise_lab.report.methods.section import MethodsPart, MethodsSection, gather_methods
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.grid import Grid
from headwise_lab.report.trials import Trial, load_trials
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import attempts_in, read_records

if TYPE_CHECKING:
    from headwise_lab.report.kept_tokens.views import KeptView
    from headwise_lab.report.kv.section import KvPart


@attrs.frozen(eq=False)
class Section:
    """One comparison: its tables, and where it does best."""

    comparison: Comparison
    scores: Grid
    differences: Grid
    wins: Grid
    overlap: Grid | None
    figures: tuple[Figure, ...] = ()
    kept: KeptView | None = None

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
    kv: KvPart
    raw: tuple[Record, ...] = ()
    methods: MethodsPart = attrs.field(factory=MethodsPart)
    method: str = verdicts.METHOD

    @property
    def comparisons(self) -> list[Comparison]:
        """The comparisons of all sections."""
        return [section.comparison for section in self.sections]

    @property
    def selects_heads(self) -> bool:
        """Whether any trial belongs to a study of heads or queries."""
        return any(not trial.record.compares_methods for trial in self.trials)

    @property
    def count(self) -> int:
        """Records that have a result."""
        return len(self.trials) + len(self.kv.runs)

    @property
    def findings(self) -> list[str]:
        """Every sentence of the verdict."""
        return [
            *(sentence for section in self.sections for sentence in section.verdicts),
            *(sentence for section in self.methods.sections for sentence in section.verdicts),
            *(sentence for part in self.kv.sections for sentence in part.verdicts),
        ]

    @property
    def figures(self) -> list[Figure]:
        """Every figure that was drawn."""
        drawn: list[Section | MethodsSection] = [*self.sections, *self.methods.sections]
        return [
            *(figure for section in drawn for figure in pictures(section)),
            *(figure for part in self.kv.sections for figure in part.figures),
        ]

    def grids(self) -> list[Grid]:
        """Every table of visual runs but the records, in the order of the report."""
        own = [
            grid
            for section in self.sections
            for grid in (section.scores, section.differences, section.wins, section.overlap)
            if grid is not None
        ]
        return [*own, *([self.total_wins] if self.total_wins else []), *self.methods.grids(), *self.others]


def pictures(section: Section | MethodsSection) -> list[Figure]:
    """The figures of a section, its overlays last."""
    return [*section.figures, *([section.kept.figure] if section.kept else [])]


def gather(folder: Path, title: str | None = None) -> Content:
    """Read an output folder; raises DataError where there is nothing to report on."""
    from headwise_lab.report.kv.section import gather_kv  # kv builds on the report's statistics and tables

    raw, warnings = read_records(folder)
    trials, told = load_trials(folder, raw)
    kv = gather_kv(folder, raw)
    of_heads = [trial for trial in trials if not trial.record.compares_methods]
    comparisons = compare(of_heads)
    sections = tuple(_section(comparison) for comparison in comparisons)
    total = tables.wins(verdicts.total_wins(comparisons), "Wins over all tables", "wins") if len(sections) > 1 else None
    others = (
        references(of_heads),
        efficiency(of_heads) if of_heads else None,
        failures(raw, attempts_in(folder)),
    )
    return Content(
        title=title or f"Headwise report: {folder.resolve().name}",
        trials=tuple(trials),
        sections=sections,
        total_wins=total,
        others=tuple(grid for grid in others if grid is not None),
        records=tables.records(trials),
        warnings=(*warnings, *told, *kv.warnings),
        kv=kv,
        raw=tuple(raw),
        methods=gather_methods(trials, raw),
    )


def _section(comparison: Comparison) -> Section:
    return Section(
        comparison=comparison,
        scores=tables.scores(comparison),
        differences=tables.differences(comparison),
        wins=tables.wins(comparison.wins(), f"{comparison.title}: wins", f"{comparison.slug}-wins"),
        overlap=tables.overlap(comparison),
    )
