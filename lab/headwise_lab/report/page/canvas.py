"""What all pictures of a report share: style, colours, canvas, and the files they are saved to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap
from typing import IO
from urllib.parse import quote, urlencode

import attrs
from matplotlib.artist import Artist
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from headwise.printing import printable

INK, GREY, LINES, GROUND = "#1f2933", "#646e79", "#e4e7eb", "#ffffff"
"""Letters and the reference; what matters less; lines behind a picture; the ground."""

SERIES = ("#0c6ecc", "#ff3004", "#10675d", "#9d3e95", "#688900", "#1e98c8")
"""Colours that stay apart for colour-blind readers, too. More than these are told apart by their markers."""

BETTER, WORSE = SERIES[0], SERIES[1]

DARK = {
    INK: "#e4e8ee", GREY: "#98a2af", LINES: "#2b323c", GROUND: "#14181e",
    **dict(zip(SERIES, ("#4981dd", "#ff7f26", "#1fbb77", "#f898bb", "#e8d136", "#9cc0ff"), strict=True)),
}  # fmt: skip
"""Each colour, and the one in its place on a page with a dark ground."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "8")

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,  # pale lines lie behind bars and marks
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a name does not begin a formula
    "svg.fonttype": "none",  # letters of an SVG are letters, which can be searched, copied and read aloud
    "svg.hashsalt": "headwise",
    "pdf.fonttype": 42,
}

_DPI = 130
MARK = "mark-"
"""How the names of marked parts begin."""


@attrs.frozen
class Figure:
    """A picture on disk, its caption, and the slug of the table it belongs to.

    ``path`` is the PNG. The same picture lies beside it as SVG and as PDF (fonts are embedded). ``budget`` and
    ``heads`` are set where the picture shows only one budget or one head count.
    """

    path: Path
    caption: str
    table: str
    budget: str = ""
    heads: str = ""

    @property
    def svg(self) -> Path:
        """The path of the SVG."""
        return self.path.with_suffix(".svg")

    @property
    def pdf(self) -> Path:
        """The path of the PDF."""
        return self.path.with_suffix(".pdf")


def marked(parts: Iterable[Artist | None], name: str, **facets: str) -> None:
    """Say of parts of a picture what they show (``name``), and by which facets the filters of a page hide them.

    A facet is a value of ``budget`` or ``heads``, or in ``records`` the ids of records, with blanks between them. All
    of it becomes the id of a group of the SVG, from which ``svg.inline`` reads it.
    """
    told = urlencode(
        {"name": printable(name), **{key: value for key, value in facets.items() if value}}, quote_via=quote
    )
    for number, part in enumerate(part for part in parts if part is not None):
        part.set_gid(f"{MARK}{number}?{told}")


def save(canvas: Canvas, path: Path | IO[bytes]) -> None:
    """Write a PNG to a file or a stream. It contains no time stamp, so equal records give equal files."""
    for text in canvas.findobj(Text):
        text.set_text(printable(text.get_text()))
    canvas.savefig(path, format="png", dpi=_DPI, facecolor=GROUND, metadata={"Software": None})


def save_all(canvas: Canvas, path: Path, note: str = "") -> None:
    """Write the PNG ``path``, and beside it the same as SVG and PDF; equal records give equal files.

    ``note``: a sentence above the picture: how many questions it stands on, and what could have been seen.
    """
    if note:
        canvas.suptitle("\n".join(wrap(note, int(17 * canvas.get_figwidth()))), fontsize=8, color=GREY)
    save(canvas, path)
    canvas.set_layout_engine("none")  # the layout of the PNG is kept: computing it takes longer than drawing
    canvas.savefig(path.with_suffix(".svg"), facecolor=GROUND, metadata={"Date": None, "Creator": None})
    nobody = {"CreationDate": None, "Creator": None, "Producer": None}
    canvas.savefig(path.with_suffix(".pdf"), facecolor=GROUND, metadata=nobody)


def new_canvas(width: float, height: float) -> Canvas:
    """An empty figure of this size in inches, which uses no display and no global state."""
    return Canvas(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07))


def looks() -> Iterable[tuple[str, str]]:
    """Colours with markers, without end: each colour first with its own marker, then with those of others."""
    return itertools.cycle(
        (colour, MARKERS[(place + turn) % len(MARKERS)])
        for turn in range(len(MARKERS))
        for place, colour in enumerate(SERIES)
    )
