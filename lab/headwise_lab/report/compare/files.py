"""The files of a comparison of output folders: Markdown, CSV, LaTeX, figures and one HTML page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from headwise.errors import DataError
from headwise_lab.report.compare.page import METHOD, Against, conclusion, grid, heading, page
from headwise_lab.report.compare.pairs import side_by_side
from headwise_lab.report.compare.sides import BY, Side
from headwise_lab.report.failures import failures
from headwise_lab.report.html_page import Page, render
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.facets import Facets, of_record, union
from headwise_lab.report.page.grid import Grid, Mark, grid_csv, markdown_text
from headwise_lab.report.page.kept import KeptView
from headwise_lab.report.page.latex import latex
from headwise_lab.report.page.measured import measured
from headwise_lab.report.page.page_records import Book
from headwise_lab.store.atomic import make_folder, put
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import attempts_in

TITLE = "Side by side"
ENDINGS = (".md", ".csv", ".tex", ".html")
"""Endings of a file that holds the whole comparison; a path without one of them is a folder for all files."""

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@attrs.frozen(eq=False)
class Shown:
    """The comparison of one folder with the first, as the page shows it."""

    against: Against
    grid: Grid
    heading: Sequence[str]
    around: Facets
    figure: Figure
    kept: Sequence[KeptView]


@attrs.frozen(eq=False)
class Compared:
    """Output folders (``sides``), and the comparison of each but the first with the first (``parts``)."""

    sides: tuple[Side, ...]
    parts: tuple[Against, ...]

    @property
    def warnings(self) -> list[str]:
        """All warnings, each once."""
        return list(dict.fromkeys(warning for part in self.parts for warning in part.warnings))


def compare_all(sides: Sequence[Side], by: Sequence[str] = BY, *, allow_different: bool = False) -> Compared:
    """Compare every side with the first; raises DataError as ``side_by_side`` does, and for more than 26 sides."""
    if len(sides) > len(_LETTERS):
        raise DataError(f"{len(sides)} folders are given; compare at most {len(_LETTERS)} at a time")
    parts = []
    for letter, side in zip(_LETTERS[1:], sides[1:], strict=False):
        pairs, warnings = side_by_side(sides[0], side, by, allow_different=allow_different)
        parts.append(Against(letter, side.called, tuple(pairs), tuple(warnings)))
    return Compared(tuple(sides), tuple(parts))


def write(compared: Compared, out: Path, title: str | None = None) -> list[Path]:
    """Write a comparison into the file ``out``, or all its files into the folder ``out``; returns what was written.

    Raises DataError where ``out`` cannot be written.
    """
    title = title or TITLE
    try:
        if out.suffix in ENDINGS:
            out.parent.mkdir(parents=True, exist_ok=True)
            put(out, _text(compared, out.suffix, title).encode(), durable=False)
            return [out]
        return _folder(compared, out, title)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error.strerror or error}); give --out another place") from error


def _text(compared: Compared, ending: str, title: str) -> str:
    if ending == ".html":
        with tempfile.TemporaryDirectory(prefix="headwise-") as hidden:
            return _html(compared, title, _drawn(compared, Path(hidden)))
    if ending == ".md":
        return page(compared.parts, compared.sides[0].called, title, {})
    write_one = grid_csv if ending == ".csv" else latex
    return "\n".join(write_one(grid(part)) for part in compared.parts)


def _folder(compared: Compared, out: Path, title: str) -> list[Path]:
    for name in ("tables", "figures"):
        out.mkdir(parents=True, exist_ok=True)
        make_folder(out / name)
    shown = _drawn(compared, out / "figures")
    pictures = {one.against.slug: [_picture(figure) for figure in _figures(one)] for one in shown}
    texts = {
        out / "report.md": page(compared.parts, compared.sides[0].called, title, pictures),
        out / "report.html": _html(compared, title, shown),
    }
    for one in shown:
        texts[out / "tables" / f"{one.grid.slug}.csv"] = grid_csv(one.grid)
        texts[out / "tables" / f"{one.grid.slug}.tex"] = latex(one.grid)
    for path, text in texts.items():
        put(path, text.encode(), durable=False)
    return [
        *texts,
        *(path for one in shown for figure in _figures(one) for path in (figure.path, figure.svg, figure.pdf)),
    ]


def _figures(shown: Shown) -> list[Figure]:
    return [shown.figure, *(view.figure for view in shown.kept)]


def _picture(figure: Figure) -> str:
    return f"![{markdown_text(figure.caption)}](figures/{figure.path.name})"


def _drawn(compared: Compared, folder: Path) -> list[Shown]:
    from headwise_lab.report.compare.figures import differences, kept

    left = compared.sides[0]
    found = []
    for part, side in zip(compared.parts, compared.sides[1:], strict=True):
        views = kept(part, left, side, folder)
        records = [record for pair in part.pairs for side_records in pair.records for record in side_records]
        known = union(map(of_record, records))
        around = Facets(benchmark=known.benchmark, model=known.model)
        figure = differences(part, folder)
        found.append(Shown(part, grid(part), heading(part, left.called), around, figure, views))
    return found


def _html(compared: Compared, title: str, shown: Sequence[Shown]) -> str:
    named = list(zip(_LETTERS, compared.sides, strict=False))
    records = [_named(record, letter) for letter, side in named for record in (*side.records, *side.failed)]
    failed = [grid for letter, side in named if (grid := _failures(letter, side))]
    contents = [(one.grid.slug, one.grid.title) for one in shown]
    contents += [(found.slug, found.title) for found in failed]
    book = Book.of(records)
    shown_page = Page(
        title,
        book,
        [*contents, ("reading", "How to read this"), ("records", "Records")],
        compared.warnings,
        measured([record for side in compared.sides for record in side.records]),
        list(map(conclusion, compared.parts)),
        next(((one.figure, one.around) for one in shown), None),
    )
    sides = [(letter, side.called) for letter, side in named]
    return render("side_by_side.html.j2", shown_page, shown=shown, sides=sides, failed=failed, method=METHOD,
                  records=_records(records, book))  # fmt: skip


def _named(record: Record, letter: str) -> Record:
    """A record whose id begins with the letter of its side, because the same trial may be on both sides."""
    return attrs.evolve(record, id=f"{letter}-{record.id}")


def _failures(letter: str, side: Side) -> Grid | None:
    named = [_named(record, letter) for record in side.failed]
    attempts = {f"{letter}-{name}": count for name, count in attempts_in(side.folder).items()} if named else {}
    found = failures(named, attempts)
    if found is None:
        return None
    return attrs.evolve(found, title=f"Failures of {letter}", slug=f"failures-{letter.lower()}")


def _records(records: Sequence[Record], book: Book) -> Grid:
    """The list of records that all figures come from."""
    header = ["Record", "Score", "n", "Strategies", "Budget", "Model", "Seed", "Command", "Where"]
    rows: list[list[str | Mark]] = [
        [
            Mark(record.id, anchor=record.id),
            *(book.fact(record.id, label) for label in header[1:]),
        ]
        for record in records
        if record.id in book.facts
    ]
    return Grid.of("Records", "records", header, rows)
