"""A printable table, and how it becomes Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

SIGNS = {"same": "≈", "better": "↑", "worse": "↓"}
"""How a verdict is written where there is no colour."""


@attrs.frozen
class Mark:
    """A table cell: its text and how it is set.

    ``verdict`` is ``same``, ``better``, ``worse`` or empty; ``note`` is a second line, ``hint`` everything else there
    is to say and ``anchor`` the record it comes from.
    """

    text: str
    bold: bool = False
    verdict: str = ""
    note: str = ""
    hint: str = ""
    anchor: str = ""
    recommended: bool = False


@attrs.frozen
class Grid:
    """A titled table of marks."""

    title: str
    slug: str
    header: tuple[str, ...]
    rows: tuple[tuple[Mark, ...], ...]
    caption: str = ""

    @classmethod
    def of(
        cls, title: str, slug: str, header: Sequence[str], rows: Sequence[Sequence[str | Mark]], caption: str = ""
    ) -> Grid:
        """A grid from plain texts and marks."""
        marks = tuple(tuple(cell if isinstance(cell, Mark) else Mark(cell) for cell in row) for row in rows)
        return cls(title, slug, tuple(header), marks, caption)


def markdown(grid: Grid) -> str:
    """A Markdown table; bold is ``**``, verdicts are signs behind the figure."""
    lines = [
        [markdown_text(name) for name in grid.header],
        ["---"] * len(grid.header),
        *([_markdown_cell(mark) for mark in row] for row in grid.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _markdown_cell(mark: Mark) -> str:
    text = markdown_text(mark.text)
    text = f"**{text}**" if mark.bold else text
    signs = SIGNS.get(mark.verdict, "") + ("★" if mark.recommended else "")
    return f"{text} {signs}" if signs else text


def markdown_text(text: str) -> str:
    """Text that a Markdown table takes literally."""
    for letter, escape in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("\n", " ")):
        text = text.replace(letter, escape)
    return text


def latex(grid: Grid) -> str:
    """A booktabs table to \\input; figures that do not differ from the baseline are grey."""
    columns = "ll" + "r" * (len(grid.header) - 2)
    body = [" & ".join(map(latex_text, grid.header)), *(" & ".join(map(_latex_cell, row)) for row in grid.rows)]
    head, *rows = (line + r" \\" for line in body)
    lines = [
        "% needs \\usepackage{booktabs,xcolor}",
        f"% {latex_text(grid.title)}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        head,
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(mark: Mark) -> str:
    text = latex_text(mark.text)
    text = f"\\textbf{{{text}}}" if mark.bold else text
    text = f"\\textcolor{{gray}}{{{text}}}" if mark.verdict == "same" else text
    return f"{text}$^\\star$" if mark.recommended else text


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "≈": r"$\approx$", "\n": " ",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text with everything LaTeX would read as a command escaped."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def comma_separated(header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV of plain rows; what a row lacks is left empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(header), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def grid_csv(grid: Grid) -> str:
    """CSV of a grid's texts."""
    return comma_separated(
        grid.header, [dict(zip(grid.header, (mark.text for mark in row), strict=True)) for row in grid.rows]
    )
