"""``build``: writes report.md, report.html, tables/ and figures/ from the records in an output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.report.content import Content, gather
from headwise_lab.report.markdown_page import markdown_page
from headwise_lab.report.page.grid import comma_separated, flat, grid_csv
from headwise_lab.report.page.latex import latex
from headwise_lab.store.atomic import make_folder, put


@attrs.frozen
class ReportPaths:
    """The paths of a written report, and its content."""

    markdown: Path
    html: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    content: Content

    @property
    def findings(self) -> list[str]:
        """The sentences of all findings."""
        return self.content.findings

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the report."""
        return self.content.warnings


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
    from headwise_lab.report.html_page import html_page

    for name in ("tables", "figures"):
        make_folder(folder / name)
    content = content.drawn(folder / "figures")
    written = _write_tables(content, folder / "tables")
    return ReportPaths(
        markdown=_write_text(folder / "report.md", markdown_page(content)),
        html=_write_text(folder / "report.html", html_page(content)),
        tables=tuple(written),
        figures=tuple(figure.path for figure in content.figures),
        content=content,
    )


def _write_tables(content: Content, folder: Path) -> list[Path]:
    """Each table as LaTeX and as CSV (whose rows may hold more than the table shows); and one CSV of all records."""
    written = []
    for grid in content.grids():
        written.append(_write_text(folder / f"{grid.slug}.tex", latex(grid)))
        written.append(_write_text(folder / f"{grid.slug}.csv", grid_csv(grid)))
    return [*written, _write_text(folder / "records.csv", _rows_csv([one.to_json() for one in content.results]))]


def _rows_csv(rows: Sequence[Mapping[str, object]]) -> str:
    flattened = [flat(row) for row in rows]
    return comma_separated(list(dict.fromkeys(key for row in flattened for key in row)), flattened)


def _write_text(path: Path, text: str) -> Path:
    """Write a file in one step, so that a reader never sees half of it."""
    put(path, text.encode(), durable=False)
    return path
