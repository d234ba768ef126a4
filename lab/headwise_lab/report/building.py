"""``build``: from an output folder to report.md, report.html, tables/ and figures/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from headwise.errors import DataError
from headwise_lab.report.content import Content, Section, gather
from headwise_lab.report.heads.comparison import Comparison
from headwise_lab.report.heads.tables import long_rows
from headwise_lab.report.markdown_page import markdown_page
from headwise_lab.report.methods.methods import Methods
from headwise_lab.report.methods.section import MethodsPart, MethodsSection
from headwise_lab.report.page.grid import Grid, comma_separated, grid_csv
from headwise_lab.report.page.latex import latex
from headwise_lab.report.trials import Trial
from headwise_lab.store.atomic import make_folder, put

if TYPE_CHECKING:
    from headwise_lab.report.kept_tokens.choices import Choice
    from headwise_lab.report.kept_tokens.views import KeptView


@attrs.frozen
class ReportPaths:
    """Where a report was written, what it found and what it has to warn about."""

    markdown: Path
    html: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    findings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def build(folder: Path, title: str | None = None) -> ReportPaths:
    """Rebuild the report of an output folder from its records and outcomes alone.

    Raises DataError where there are no records, one is malformed, or the folder cannot be written to.
    """
    folder = Path(folder)
    content = gather(folder, title)
    try:
        return _write(folder, content)
    except OSError as error:
        raise DataError(f"the report cannot be written to {folder} ({error}); give one you may write to") from error


def _write(folder: Path, content: Content) -> ReportPaths:
    for name in ("tables", "figures"):
        make_folder(folder / name)
    content = _with_figures(content, folder)
    written = _write_tables(content, folder / "tables")
    from headwise_lab.report.html_page import html_page

    return ReportPaths(
        markdown=_write_text(folder / "report.md", markdown_page(content)),
        html=_write_text(folder / "report.html", html_page(content)),
        tables=tuple(written),
        figures=tuple(figure.path for figure in content.figures),
        findings=tuple(content.findings),
        warnings=content.warnings,
    )


def _with_figures(content: Content, folder: Path) -> Content:
    """The content with its figures drawn; what could not be drawn becomes a warning."""
    from headwise_lab.report.heads import figures
    from headwise_lab.report.kept_tokens.choices import of_comparison

    target = folder / "figures"
    sections: list[Section] = []
    notes: list[str] = []
    for section in content.sections:
        comparison = section.comparison
        full = _unpruned(comparison, content.trials)
        kept, note = _kept(comparison, of_comparison(comparison), folder, full)
        score = (full.value, full.se or 0.0) if full else None
        drawn = (figures.scores(comparison, score, target), figures.heat_map(comparison, target))
        notes += [note] if note else []
        sections.append(attrs.evolve(section, figures=tuple(figure for figure in drawn if figure), kept=kept))
    kv = attrs.evolve(content.kv, sections=tuple(part.drawn(target) for part in content.kv.sections))
    methods, told = _methods(content.methods.drawn(target), folder)
    warnings = (*content.warnings, *notes, *told)
    return attrs.evolve(content, sections=tuple(sections), methods=methods, kv=kv, warnings=warnings)


def _methods(part: MethodsPart, folder: Path) -> tuple[MethodsPart, list[str]]:
    """The part with overlays of kept tokens, and what there is to warn about."""
    from headwise_lab.report.kept_tokens.choices import of_methods

    sections: list[MethodsSection] = []
    notes: list[str] = []
    for section in part.sections:
        methods = section.methods
        if methods is not None:
            kept, note = _kept(methods, of_methods(methods), folder, methods.unpruned)
            section, notes = attrs.evolve(section, kept=kept), notes + ([note] if note else [])  # noqa: PLW2901
        sections.append(section)
    return attrs.evolve(part, sections=tuple(sections)), notes


def _kept(
    table: Comparison | Methods, choices: Sequence[Choice], folder: Path, full: Trial | None
) -> tuple[KeptView | None, str | None]:
    from headwise_lab.report.kept_tokens.views import Wanted, kept_view

    wanted = Wanted(title=table.title, slug=table.slug, choices=choices, source=folder, unpruned=full)
    return kept_view(wanted, folder / "figures")


def _unpruned(comparison: Comparison, trials: Sequence[Trial]) -> Trial | None:
    """The same model without pruning, where exactly one such trial was run."""
    model = next(trial.model for _, _, cell in comparison.cells() for trial in cell.trials)
    full = [
        trial
        for trial in trials
        if trial.name("token_pruning") == "none" and (trial.benchmark, trial.model) == (comparison.benchmark, model)
    ]
    return full[0] if len(full) == 1 else None


def _write_tables(content: Content, folder: Path) -> list[Path]:
    written = []
    for grid in content.grids():
        written.append(_write_text(folder / f"{grid.slug}.tex", latex(grid)))
        written.append(_write_text(folder / f"{grid.slug}.csv", _csv(grid, content)))
    written.append(_write_text(folder / "records.csv", _rows_csv(_records(content))))
    return written + _write_kv_tables(content, folder)


def _records(content: Content) -> list[dict[str, object]]:
    return [*(trial.record.to_json() for trial in content.trials), *(run.record.to_json() for run in content.kv.runs)]


def _write_kv_tables(content: Content, folder: Path) -> list[Path]:
    """The CSV of a KV section carries every column there is; the other tables are written as shown."""
    from headwise_lab.report.kv.tables import long_rows as kv_rows

    written = []
    for section in content.kv.sections:
        written.append(_write_text(folder / f"{section.slug}.csv", _rows_csv(kv_rows(section.judged))))
        written.append(_write_text(folder / f"{section.slug}.tex", latex(section.main)))
        for grid in section.others:
            written.append(_write_text(folder / f"{grid.slug}.csv", grid_csv(grid)))
            written.append(_write_text(folder / f"{grid.slug}.tex", latex(grid)))
    return written


def _csv(grid: Grid, content: Content) -> str:
    """Score tables carry every column there is, one line per cell and record; the others are written as shown."""
    for section in content.sections:
        if grid is section.scores:
            return _rows_csv(long_rows(section.comparison))
    return grid_csv(grid)


def _rows_csv(rows: Sequence[Mapping[str, object]]) -> str:
    from headwise_lab.report.page.grid import flat

    flattened = [flat(row) for row in rows]
    return comma_separated(list(dict.fromkeys(key for row in flattened for key in row)), flattened)


def _write_text(path: Path, text: str) -> Path:
    """Write a file in one step, so that a reader never sees half of it."""
    put(path, text.encode(), durable=False)
    return path
