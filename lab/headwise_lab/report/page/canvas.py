"""What all pictures of a report share: style, colours, canvas, and the files they are saved to."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import attrs
import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from headwise.printing import printable

GREY = "#8a8f98"
INK = "#1f2933"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in a name does not begin a formula
}

_DPI = 130

Colour = str | tuple[float, ...]
"""A name of matplotlib, or shares of red, green and blue."""


@attrs.frozen
class Figure:
    """A picture on disk, its caption, and the slug of the table it belongs to.

    ``path`` is the PNG. The same picture lies beside it as SVG (letters are shapes) and as PDF (fonts are embedded).
    ``budget`` and ``heads`` are set where the picture shows only one budget or one head count.
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


def save(canvas: Canvas, path: Path | IO[bytes]) -> None:
    """Write a PNG to a file or a stream. It contains no time stamp, so equal records give equal files."""
    for text in canvas.findobj(Text):
        text.set_text(printable(text.get_text()))
    canvas.savefig(path, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})


def save_all(canvas: Canvas, path: Path) -> None:
    """Write the PNG ``path``, and beside it the same as SVG and PDF; equal records give equal files."""
    save(canvas, path)
    canvas.set_layout_engine("none")  # the layout of the PNG is kept: computing it takes longer than drawing
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "headwise", "pdf.fonttype": 42}):
        canvas.savefig(path.with_suffix(".svg"), facecolor="white", metadata={"Date": None, "Creator": None})
        nobody = {"CreationDate": None, "Creator": None, "Producer": None}
        canvas.savefig(path.with_suffix(".pdf"), facecolor="white", metadata=nobody)


def new_canvas(width: float, height: float) -> Canvas:
    """An empty figure of this size in inches, which uses no display and no global state."""
    return Canvas(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07))


def colours() -> list[Colour]:
    """Ten colours but grey, then seven that are nearly equal to some of them."""
    first = [matplotlib.colormaps["tab10"](index)[:3] for index in range(10) if index != 7]
    return [*first, *(matplotlib.colormaps["Dark2"](index)[:3] for index in range(7))]
