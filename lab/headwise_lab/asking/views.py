"""What each recipe kept after each of its stages, drawn over the picture."""

from __future__ import annotations

import base64
import io
import math
import textwrap
import warnings
from collections.abc import Sequence

import attrs
import matplotlib
import numpy as np
from PIL import Image

from headwise_adapters.vision.overlay import EDGE, drawn, untouched
from headwise_lab.asking.answering import Answered, Ready
from headwise_lab.asking.request import Asked
from headwise_lab.benchmarks.inputs import made_square
from headwise_lab.models.load import Loaded
from headwise_lab.report.kept_tokens.overlays import show_panel
from headwise_lab.report.kept_tokens.pictures import Shown, shown
from headwise_lab.report.page.canvas import INK, STYLE, new_canvas, save

PER_LINE = 4


@attrs.frozen(eq=False)
class Panel:
    """What one recipe kept of the picture, and what it answered; the first panel is the picture itself."""

    name: str
    said: str
    image: Image.Image

    @property
    def data_uri(self) -> str:
        """The picture as text that a page carries; every pixel counts, since lines are one or two pixels wide."""
        content = io.BytesIO()
        self.image.save(content, "WEBP", lossless=True, method=4)
        return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def seen(asked: Asked, model: Ready) -> tuple[Shown | None, list[str]]:
    """The picture and where the tokens lie on it, None where nobody knows; and sentences for the user about it."""
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
    return shown(asked.image, (), (side, side), padded=how == "padded"), notes


def panels(view: Shown, answers: Sequence[Answered], edge: int = EDGE) -> list[Panel]:
    """The picture itself, then after each stage of each recipe what was kept of it.

    ``edge``: pixels along the longer edge, about. Tokens of a few pixels have neither outline nor hatching.
    """
    whole = untouched(view.image, [view.tile], edge)
    found = [Panel("the picture", f"{answers[0].name}: {answers[0].answer}", whole)]
    for one in answers[1:]:
        if one.refused is None and one.kept is not None:
            stages = one.stages if len(one.stages) > 1 else [(None, one.kept)]
            for layer, kept in stages:
                name = one.name if layer is None else f"{one.name}, before layer {layer}"
                image = drawn(view.image, [view.tile], kept, edge=edge)
                found.append(Panel(f"{name}: {len(kept)} tokens", one.answer or "", image))
    return found


def png(found: Sequence[Panel], title: str) -> bytes:
    """The panels side by side, as a PNG."""
    width = min(PER_LINE, len(found))
    lines = -(-len(found) // width)
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a question may be in any script; the page shows it
        canvas = new_canvas(2.6 * width, 3.3 * lines + 0.3)
        canvas.suptitle("\n".join(textwrap.wrap(title, 40 * width)[:3]), fontsize=9, color=INK)
        axes = list(canvas.subplots(lines, width, squeeze=False).flat)
        for place, panel in zip(axes, found, strict=False):
            show_panel(place, np.asarray(panel.image, dtype=np.float32) / 255, ())
            place.set_title("\n".join(textwrap.wrap(panel.name, 28)[:3]), fontsize=9, color=INK)
            place.set_xlabel("\n".join(textwrap.wrap(panel.said, 34)[:4]), fontsize=8, color=INK)
        for place in axes[len(found) :]:
            place.set_axis_off()
        save(canvas, content)
    return content.getvalue()
