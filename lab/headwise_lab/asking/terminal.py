"""The answers in a terminal: a table, and, where it has colours, the picture with what each recipe kept."""

from __future__ import annotations

import numpy as np
from PIL import Image
from rich.color import Color
from rich.columns import Columns
from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from headwise_lab.asking.outcome import Outcome
from headwise_lab.asking.table import header, heading, legend, rows
from headwise_lab.asking.views import Panel, panels
from headwise_lab.terminal import Terminal
from headwise_lab.terminal.tables import text_table

NARROWEST = 76  # columns; a narrower terminal wraps the lines of the table
NAME = 30  # columns of a name that are not folded
PANEL = 36  # columns of a picture, about


def show(found: Outcome) -> None:
    """Print heading, table, sentences, and pictures where the terminal shows colours."""
    output = Terminal()
    whole = not output.is_terminal  # whoever reads a file wants each sentence on one line
    output.print(heading(found), style="bold", soft_wrap=whole)
    output.print()
    Terminal(width=max(output.width, NARROWEST), soft_wrap=True).print(table(found))
    output.print()
    for sentence in legend(found):
        output.print(sentence, soft_wrap=whole)
    if found.view is not None and shows_pictures(output):
        output.print()
        output.print(Columns([_labelled(one) for one in panels(found.view, found.answers, PANEL)], padding=(0, 2)))


def table(found: Outcome) -> Table:
    """The answers; only their column is folded."""
    made = text_table(header(found), [[Text(cell) for cell in row] for row in rows(found)], left=2)
    for column in made.columns[:2]:
        column.no_wrap, column.overflow = False, "fold"
    made.columns[0].min_width = min(NAME, max(len(one.name) for one in found.answers))
    return made


def shows_pictures(console: Terminal) -> bool:
    """Whether a console is a terminal with enough colours, and letters beyond ASCII."""
    coloured = console.is_terminal and not console.no_color and console.color_system in ("truecolor", "256")
    return coloured and (console.encoding or "").lower().replace("-", "").startswith("utf")


def _labelled(panel: Panel) -> Group:
    return Group(Text(panel.name[: panel.image.width], style="bold"), half_blocks(panel.image), Text(""))


def half_blocks(image: Image.Image) -> Text:
    """Two rows of pixels in each line: the letters are upper half-blocks, the lower halves are their background."""
    pixels = np.asarray(image)
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    text = Text(no_wrap=True)
    for line, (above, below) in enumerate(zip(pixels[::2], pixels[1::2], strict=True)):
        text.append("\n" if line else "")
        for upper, lower in zip(above.tolist(), below.tolist(), strict=True):
            text.append("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower)))
    return text
