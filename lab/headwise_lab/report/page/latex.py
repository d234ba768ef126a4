r"""Tables for papers: a booktabs ``tabular`` to ``\input``, with title, caption and a key in comments above it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import category

from headwise_lab.report.page.grid import Grid, Mark

_NUMBER = re.compile(r"[<≥≤+−-]? ?\d")
_EMPTY = ("", "-")
_SIGNS = {"better": r"$^\uparrow$", "worse": r"$^\downarrow$"}
_KEY = (
    r"bold: best, ties too; grey: no difference to the reference; \uparrow better, \downarrow worse; \star recommended;"
    " ~: reference interpolated; -: missing"
)


def latex(grid: Grid) -> str:
    r"""A booktabs table to ``\input``; figures that do not differ from the reference are grey."""
    header = " & ".join(map(latex_text, grid.header)) + r" \\"
    return "\n".join([
        "% needs \\usepackage{booktabs,xcolor}",
        *(f"% {latex_text(text)}" for text in (grid.title, grid.caption) if text),
        *([f"% {_KEY}"] if any(mark.verdict or mark.bold for row in grid.rows for mark in row) else []),
        f"\\begin{{tabular}}{{{''.join(_column(grid, place) for place in range(len(grid.header)))}}}",
        "\\toprule",
        header,
        "\\midrule",
        *_rows(grid),
        "\\bottomrule",
        "\\end{tabular}",
        "",
    ])  # fmt: skip


def _column(grid: Grid, place: int) -> str:
    """The alignment of a column: numbers to the right, all else to the left."""
    filled = [row[place].text for row in grid.rows if row[place].text not in _EMPTY]
    return "r" if filled and all(_NUMBER.match(text) for text in filled) else "l"


def _rows(grid: Grid) -> list[str]:
    """The lines of the body. Where the first cell is filled once per group, a little space parts the groups."""
    grouped = any(row and not row[0].text for row in grid.rows)
    lines = []
    for number, row in enumerate(grid.rows):
        if grouped and number and row[0].text:
            lines.append("\\addlinespace")
        lines.append(_line(row))
    return lines


def _line(row: Sequence[Mark]) -> str:
    r"""The cells of a row. LaTeX would read a bracket or star at its beginning as an option of the ``\\`` above."""
    return " & ".join(map(_cell, row)) + r" \\"


def _cell(mark: Mark) -> str:
    text = latex_text(mark.text)
    text = f"\\textbf{{{text}}}" if mark.bold else text
    text = f"\\textcolor{{gray}}{{{text}}}" if mark.verdict == "same" else text
    return text + _SIGNS.get(mark.verdict, "") + (r"$^\star$" if mark.recommended else "")


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}", "`": r"\textasciigrave{}",
    "±": r"$\pm$", "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "−": r"$-$",
    "→": r"$\rightarrow$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "★": r"$\star$", "…": r"\ldots{}", "–": "--",
    "—": "---", "µ": r"\textmu{}",
}  # fmt: skip


_BREAKS = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
"""Categories of characters that end a line or for which LaTeX has no glyph."""


def latex_text(text: str) -> str:
    """Text in which everything that LaTeX would read as a command is escaped."""
    return "".join(" " if category(letter) in _BREAKS else _LATEX.get(letter, letter) for letter in text)
