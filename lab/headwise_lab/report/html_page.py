"""The report as one HTML page that needs no other file: style, script and pictures are inside.

The templates, and the style and scripts that they include, are in ``templates``. The Content-Security-Policy of the
page forbids every request, and every script but its own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from headwise_lab.report.chapter import Section
from headwise_lab.report.content import Content
from headwise_lab.report.page.canvas import Figure
from headwise_lab.report.page.facets import Facets, of_record, union
from headwise_lab.report.page.grid import Grid, grid_csv
from headwise_lab.report.page.latex import latex
from headwise_lab.report.page.measured import measured, natural
from headwise_lab.report.page.page_records import Book
from headwise_lab.report.page.page_tables import PageTable, page_table
from headwise_lab.report.page.svg import inline, theme

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("page.js", "sort.js", "facts.js", "filter.js", "tables.js", "kept.js")
NOWHERE = Facets()


@attrs.frozen(eq=False, slots=False)
class Page:
    """What the templates use: title, records, contents, and tables with their facets.

    ``measured`` (label, text), ``conclusions`` and ``lead``, the main figure with its facets, are the first screen.
    """

    title: str
    book: Book
    contents: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()
    measured: Sequence[tuple[str, str]] = ()
    conclusions: Sequence[str] = ()
    lead: tuple[Figure, Facets] | None = None
    findings: Sequence[tuple[str, Facets]] = ()

    @cached_property
    def style(self) -> str:
        """The style sheet."""
        return (TEMPLATES / "page.css").read_text(encoding="utf-8") + theme()

    @cached_property
    def script(self) -> str:
        """All scripts in one scope of their own."""
        parts = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
        return f'\n"use strict";\n(() => {{\n{parts}}})();\n'

    @property
    def digest(self) -> str:
        """The hash of the script, by which a browser recognises it."""
        return f"sha256-{base64.b64encode(hashlib.sha256(self.script.encode()).digest()).decode('ascii')}"

    @cached_property
    def options(self) -> dict[str, list[str]]:
        """Kind of filter -> its values. There is a filter for models only where there are several."""
        known = union(self.book.facets.values())
        kinds = ["benchmark", "budget", "heads", *(["model"] if len(known.model) > 1 else [])]
        return {kind: sorted(getattr(known, kind), key=natural if kind in ("budget", "heads") else None)
                for kind in kinds}  # fmt: skip

    @staticmethod
    def named(kind: str, value: str) -> str:
        """A value as a filter lists it."""
        return f"{value} heads" if kind == "heads" and (value.isdigit() or value == "all") else value

    def table(self, grid: Grid, around: Facets = NOWHERE, *, entries: bool = False, wide: bool = False) -> PageTable:
        """A table. ``around``: the facets of its section. ``entries``: links to records lead to its rows."""
        return page_table(grid, self.book, around, entries=entries, wide=wide)

    def downloads(self, grid: Grid, *, paper: bool = True) -> list[tuple[str, str]]:
        """(kind, file name) of the files of a table, which the page keeps. ``paper``: as LaTeX too."""
        kept = [("CSV", self.book.keep(f"{grid.slug}.csv", grid_csv(grid)))]
        return [*kept, ("LaTeX", self.book.keep(f"{grid.slug}.tex", latex(grid)))] if paper else kept

    def around(self, section: Section) -> Facets:
        """The benchmarks and models of a section."""
        known = union(map(of_record, section.records))
        return Facets(benchmark=known.benchmark, model=known.model)

    def about(self, sentence: str, section: Section) -> Facets:
        """The facets of a sentence: benchmark and model of its section, and the budgets that it names."""
        around = self.around(section)
        named = [
            budget for budget in self.options["budget"] if re.search(rf"(?<!\w){re.escape(budget)}(?![\w.])", sentence)
        ]
        return attrs.evolve(around, budget=tuple(named))


def html_page(content: Content) -> str:
    """The whole page, made from ``templates/report.html.j2``; all text from records is escaped."""
    page = Page(
        content.title,
        Book.of(content.records),
        _contents(content),
        content.warnings,
        measured(content.results),
        content.conclusions,
    )
    findings = [(line, page.about(line, section)) for section in content.sections for line in section.verdicts]
    lead = next(
        ((figure, page.around(section)) for section in content.sections for figure in section.drawn.figures), None
    )
    return render("report.html.j2", attrs.evolve(page, findings=findings, lead=lead), content=content)


def _contents(content: Content) -> list[tuple[str, str]]:
    parts = [(section.slug, section.title) for section in content.sections]
    parts += [(grid.slug, grid.title) for grid in content.closing]
    return [("findings", "Findings"), *parts, ("reading", "How to read this"), ("records", "Records")]


def render(name: str, page: Page, **more: Any) -> str:
    """Render a template. Everything is escaped but the style and the script, which come with this package."""
    return templates(TEMPLATES).get_template(name).render(page=page, **more)


@functools.cache
def templates(folder: Path) -> Environment:
    """The templates of a folder. They are compiled once, because that takes longer than most pages; they escape."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {"inline": inline, "light": light}
    environment.filters.update(filters)
    return environment


def light(figure: Figure) -> str:
    """A figure with photographs as a small data URI, for readers who run no scripts."""
    content = io.BytesIO()
    with Image.open(figure.path) as opened:
        opened.convert("RGB").save(content, "WEBP", quality=75, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
