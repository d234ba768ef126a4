"""What every picture of a report shares: its style, its canvas, and the files it is saved to."""

from __future__ import annotations

from pathlib import Path

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
    "text.parse_math": False,  # a dollar sign in a name begins no formula
}

_DPI = 130

Colour = str | tuple[float, ...]
"""As matplotlib takes it: a name, or shares of red, green and blue."""


@attrs.frozen
class Figure:
    """A picture on disk, its caption, and the slug of the table it belongs to.

    ``path`` is the PNG; the same picture lies beside it as SVG, letters drawn as shapes, and as PDF, fonts embedded.
    ``budget`` and ``heads`` are given where a picture shows one of them alone.
    """

    path: Path
    caption: str
    table: str
    budget: str = ""
    heads: str = ""

    @property
    def svg(self) -> Path:
        """The SVG."""
        return self.path.with_suffix(".svg")

    @property
    def pdf(self) -> Path:
        """The PDF."""
        return self.path.with_suffix(".pdf")


def save(canvas: Canvas, path: Path) -> None:
    """Write a PNG; no time stamp inside, so equal records give equal files."""
    for text in canvas.findobj(Text):
        text.set_text(printable(text.get_text()))
    canvas.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})


def save_all(canvas: Canvas, path: Path) -> None:
    """Write the PNG ``path`` and the same as SVG and PDF beside it; equal records give equal files here, too."""
    save(canvas, path)
    canvas.set_layout_engine("none")  # what the first file found is kept: layout takes longer than drawing
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "headwise", "pdf.fonttype": 42}):
        canvas.savefig(path.with_suffix(".svg"), facecolor="white", metadata={"Date": None, "Creator": None})
        nobody = {"CreationDate": None, "Creator": None, "Producer": None}
        canvas.savefig(path.with_suffix(".pdf"), facecolor="white", metadata=nobody)


def new_canvas(width: float, height: float) -> Canvas:
    """An empty figure that knows no display and no global state."""
    return Canvas(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.07))
