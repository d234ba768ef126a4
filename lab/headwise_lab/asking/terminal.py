"""The answers in a terminal: a table, and, where it can be shown, the picture with what each recipe kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from rich.color import Color
from rich.columns import Columns
from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from headwise.errors import DataError
from headwise_lab.asking.outcome import Outcome
from headwise_lab.asking.table import header, heading, legend, rows
from headwise_lab.asking.views import Panel, panels
from headwise_lab.terminal import Terminal
from headwise_lab.terminal.pictures import (
    AUTO,
    BLOCKS,
    NONE,
    PROTOCOLS,
    WAYS,
    cell_of,
    multiplexer,
    placed,
    protocol_of,
)
from headwise_lab.terminal.tables import text_table

NARROWEST = 76  # columns; a narrower terminal wraps the lines of the table
NAME = 30  # columns of a name that are not folded
PANEL = 36  # columns of a picture, about
GAP = 2  # columns between pictures


def show(found: Outcome, picture: str = AUTO) -> None:
    """Print heading, table, sentences, and pictures in the way that ``picture`` names, one of WAYS."""
    output = Terminal()
    whole = not output.is_terminal  # whoever reads a file wants each sentence on one line
    output.print(heading(found), style="bold", soft_wrap=whole)
    output.print()
    Terminal(width=max(output.width, NARROWEST), soft_wrap=True).print(table(found))
    output.print()
    for sentence in legend(found):
        output.print(sentence, soft_wrap=whole)
    way = way_of(output, picture)
    if found.view is None or way == NONE:
        return
    output.print()
    if way == BLOCKS:
        small = [_labelled(one) for one in panels(found.view, found.answers, PANEL)]
        output.print(Columns(small, padding=(0, GAP)))
    else:
        _draw(panels(found.view, found.answers, PANEL * cell_of(output.file)[0]), output, way)


def table(found: Outcome) -> Table:
    """The answers; only their column is folded."""
    made = text_table(header(found), [[Text(cell) for cell in row] for row in rows(found)], left=2)
    for column in made.columns[:2]:
        column.no_wrap, column.overflow = False, "fold"
    made.columns[0].min_width = min(NAME, max(len(one.name) for one in found.answers))
    return made


def way_of(console: Terminal, picture: str, environment: Mapping[str, str] = os.environ) -> str:
    """In which way a console shows pictures, of WAYS without AUTO; ``auto`` is the best that it is known to have.

    Raises DataError for a way that it cannot have: no escape sequence is written where there is no terminal.
    """
    if picture not in WAYS:
        raise DataError(f"--picture {picture!r} is not one of {', '.join(WAYS)}")
    if picture == AUTO:
        shown = console.is_terminal and not console.no_color and not console.is_dumb_terminal
        return (protocol_of(environment) if shown else None) or (BLOCKS if shows_pictures(console) else NONE)
    if picture != NONE and not console.is_terminal:
        raise DataError(f"--picture {picture} is for a terminal, and the output is none; --out DIR writes the picture")
    if picture in PROTOCOLS and multiplexer(environment) == "screen":
        raise DataError(f"--picture {picture}: screen hands no pictures on; give --picture blocks")
    return picture


def shows_pictures(console: Terminal) -> bool:
    """Whether a console is a terminal with enough colours, and letters beyond ASCII."""
    coloured = console.is_terminal and not console.no_color and console.color_system in ("truecolor", "256")
    return coloured and (console.encoding or "").lower().replace("-", "").startswith("utf")


def _draw(shown: Sequence[Panel], output: Terminal, protocol: str) -> None:
    """Draw pictures side by side, as many as there is room for, each below its name."""
    (wide, high), room = cell_of(output.file), max(1, (output.width + GAP) // (PANEL + GAP))
    for first in range(0, len(shown), room):
        line = shown[first : first + room]
        output.print((" " * GAP).join(f"{one.name[:PANEL]:{PANEL}}" for one in line), style="bold")
        sheet = side_by_side([one.image for one in line], PANEL * wide, GAP * wide)
        columns, rows = len(line) * (PANEL + GAP) - GAP, -(-sheet.height // high)
        whole = sheet.crop((0, 0, sheet.width, rows * high))  # transparent below, so that nothing is stretched
        output.file.write(placed(whole, protocol, (columns, rows), os.environ))
        output.print()


def side_by_side(images: Sequence[Image.Image], width: int, gap: int) -> Image.Image:
    """Pictures in places of ``width`` pixels, with nothing between them."""
    sheet = Image.new("RGBA", (len(images) * (width + gap) - gap, max(image.height for image in images)))
    for number, image in enumerate(images):
        image.thumbnail((width, image.height))  # a little too wide where tokens are whole pixels
        sheet.paste(image.convert("RGBA"), (number * (width + gap), 0))
    return sheet


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
