"""What each recipe kept, drawn over the picture: the square that the model sees, with the dropped squares faded."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Sequence

import attrs
import matplotlib
import numpy as np
from PIL import Image

from headwise_adapters.vision.overlay import Tile, drawn
from headwise_lab.asking.answering import Answered, Ready
from headwise_lab.asking.request import Asked
from headwise_lab.benchmarks.inputs import made_square
from headwise_lab.models.load import Loaded
from headwise_lab.report.kept_tokens.overlays import show_panel
from headwise_lab.report.kept_tokens.squares import Square, square
from headwise_lab.report.page.canvas import INK, STYLE, new_canvas, save

LARGEST = 672  # pixels along an edge of what is shown
PER_LINE = 4


@attrs.frozen(eq=False)
class Seen:
    """The square of a picture on which ``side`` x ``side`` visual tokens lie in reading order."""

    shown: Square
    side: int

    def at(self, edge: int) -> Image.Image:
        """The square, ``edge`` pixels wide."""
        image = self.shown.image
        return image if image.width == edge else image.resize((edge, edge), Image.Resampling.LANCZOS)

    @property
    def edge(self) -> int:
        """Pixels along the edge of what is shown, a multiple of ``side``."""
        return self.side * max(1, round(min(self.shown.image.width, LARGEST) / self.side))


@attrs.frozen(eq=False)
class Panel:
    """What one recipe kept of the picture, and what it answered; the first panel is the picture that the model sees."""

    name: str
    said: str
    image: Image.Image

    @property
    def data_uri(self) -> str:
        """The picture as text that a page carries."""
        return Square(self.image, ()).data_uri()

    @property
    def small(self) -> bool:
        """Whether it has so few pixels that they are shown as they are."""
        return Square(self.image, ()).small


def seen(asked: Asked, model: Ready) -> tuple[Seen | None, list[str]]:
    """Where the tokens lie on the picture, None where nobody knows; and sentences for the user about it."""
    if asked.image is None or not isinstance(model.loaded, Loaded):
        return None, []
    how, side = made_square(model.loaded.processor), math.isqrt(model.visual)
    if how is None or side * side != model.visual:
        return None, [f"Where the tokens of {model.loaded.name} lie on a picture is not known, so nothing is drawn."]
    width, height = asked.size or (0, 0)
    notes = []
    if width != height:
        part = "with borders that make it square" if how == "padded" else "only as far as the square at its centre"
        notes.append(f"The picture is {width} x {height}; the model sees it {part}.")
    return Seen(square(asked.image, (), padded=how == "padded"), side), notes


def panels(view: Seen, answers: Sequence[Answered], edge: int | None = None) -> list[Panel]:
    """The square as the model sees it, then what each recipe kept of it.

    ``edge``: pixels along the edge of small panels, in which squares have neither outline nor hatching.
    """
    whole = view.at(edge or view.edge)
    found = [Panel("the picture", f"{answers[0].name}: {answers[0].answer}", whole)]
    for one in answers[1:]:
        if one.refused is None and one.kept is not None:
            tile = Tile((view.side, view.side), (0, 0, *whole.size))
            image = drawn(whole, [tile], one.kept, edge=whole.width)
            found.append(Panel(one.name, one.answer or "", image))
    return found


def png(shown: Sequence[Panel], title: str) -> bytes:
    """The panels side by side, as a PNG."""
    width = min(PER_LINE, len(shown))
    lines = -(-len(shown) // width)
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a question may be in any script; the page shows it
        canvas = new_canvas(2.6 * width, 3.3 * lines + 0.3)
        canvas.suptitle("\n".join(textwrap.wrap(title, 40 * width)[:3]), fontsize=9, color=INK)
        axes = list(canvas.subplots(lines, width, squeeze=False).flat)
        for place, panel in zip(axes, shown, strict=False):
            show_panel(place, np.asarray(panel.image, dtype=np.float32) / 255, ())
            place.set_title("\n".join(textwrap.wrap(panel.name, 28)[:3]), fontsize=9, color=INK)
            place.set_xlabel("\n".join(textwrap.wrap(panel.said, 34)[:4]), fontsize=8, color=INK)
        for place in axes[len(shown) :]:
            place.set_axis_off()
        save(canvas, content)
    return content.getvalue()
