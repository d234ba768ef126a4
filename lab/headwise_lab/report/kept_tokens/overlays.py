"""Figures of kept tokens on example images, with several strategies side by side, where they disagree.

The visual tokens of an image form a square grid, row by row. They lie on the centre of an image that is not square,
or on all of it and its borders, as the record says.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.patches import Rectangle
from PIL import Image

from headwise.printing import printable
from headwise_adapters.vision.overlay import drawn, untouched
from headwise_lab.report.kept_tokens.choices import KeptSetting, placed
from headwise_lab.report.kept_tokens.pictures import Box, Shown, shown
from headwise_lab.report.page.canvas import GREY, INK, STYLE, Figure, new_canvas, save_all
from headwise_lab.store.outcome_types import QuestionOutcome as Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXAMPLES = 3
_EDGE = 300  # pixels of a drawn picture, little more than a panel has: lines stay lines
_BOX = "#ffb000"

Pixels = npt.NDArray[np.generic]

Example = tuple[Path, Mapping[str, Outcome]]
"""An image, and strategy -> outcome on a question about it."""


def overlay(
    choice: KeptSetting, examples: Sequence[Example], side: int, *, title: str, slug: str, folder: Path
) -> Figure:
    """Draw the figure: for each example a line with the image and what each strategy kept of it."""
    path = folder / f"{slug}-kept.png"
    lines = []
    for image, outcomes in examples[:EXAMPLES]:
        first = next(iter(outcomes.values()))
        lines.append((shown(image, first.boxes, (side, side), padded=placed(choice) == "padded"), outcomes))
    with matplotlib.rc_context(STYLE):
        _draw(lines, path)
    caption = (
        f"{title}: tokens kept at {choice.label}, on examples where strategies disagree. Outlined: kept; grey,"
        " hatched: dropped."
    )
    return Figure(path, caption, slug, choice.budget, choice.heads)


def _draw(lines: Sequence[tuple[Shown, Mapping[str, Outcome]]], path: Path) -> None:
    strategies = list(lines[0][1])
    swept = [(name, outcome) for name, outcome in lines[0][1].items() if len(outcome.stages) > 1]
    width = 1 + max(len(strategies), *(len(outcome.stages) for _, outcome in swept), 1)
    height = len(lines) + len(swept)
    canvas = new_canvas(1.75 * width, 2.2 * height + 0.2)
    panels = canvas.subplots(height, width, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for line, (picture, outcomes) in zip(panels, lines, strict=False):
        _panel(line[0], picture, untouched(picture.image, [picture.tile]))
        line[0].set_xlabel(_question(outcomes[strategies[0]]), fontsize=7, color=INK)
        for panel, name in zip(line[1:], strategies, strict=False):
            outcome = outcomes[name]
            _panel(panel, picture, drawn(picture.image, [picture.tile], outcome.kept, edge=_EDGE))
            panel.set_xlabel(_answer(outcome), fontsize=7, color=INK if outcome.score else GREY)
    for line, (name, outcome) in zip(panels[len(lines) :], swept, strict=True):
        _sweep(line, lines[0][0], name, outcome)
    for panel, name in zip(panels[0], ["the image", *strategies], strict=False):
        panel.set_title("\n".join(textwrap.wrap(name, 18)), fontsize=8, fontweight="bold", color=INK)
    save_all(canvas, path)


def _sweep(line: Sequence[Axes], picture: Shown, name: str, outcome: Outcome) -> None:
    """The first picture again, and what one strategy kept of it after each of its stages."""
    _panel(line[0], picture, untouched(picture.image, [picture.tile]))
    line[0].set_xlabel(printable("\n".join(textwrap.wrap(f"{name}, stage by stage", 28))), fontsize=7, color=INK)
    for number, (panel, kept) in enumerate(zip(line[1:], outcome.stages, strict=False), 1):
        _panel(panel, picture, drawn(picture.image, [picture.tile], kept, edge=_EDGE))
        panel.set_xlabel(f"after stage {number}: {len(kept)} tokens", fontsize=7, color=INK)


def _panel(panel: Axes, picture: Shown, image: Image.Image) -> None:
    """An image of the whole picture at any scale, with the boxes of the question."""
    scale = image.width / picture.image.width
    show_panel(panel, np.asarray(image) / 255, [tuple(scale * end for end in box) for box in picture.boxes])


def show_panel(panel: Axes, picture: Pixels, boxes: Sequence[Box]) -> None:
    """A picture in shares of full brightness, boxes (x0, y0, x1, y1) in its pixels drawn over it, and a thin frame."""
    panel.imshow(np.clip(picture, 0, 1), interpolation="antialiased")
    for x0, y0, x1, y1 in boxes:
        for colour, width in (("black", 2.6), (_BOX, 1.4)):
            panel.add_patch(
                Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width)
            )
    panel.set_axis_on()
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set_visible(True)
        side.set_color(GREY)
        side.set_linewidth(0.6)


def _question(question: Outcome) -> str:
    text = question.question.splitlines()[0] if question.question else ""
    wanted = f"\n→ {question.answers[0]}" if question.answers else ""
    return printable("\n".join(textwrap.wrap(text, 28)[:3]) + wanted)


def _answer(outcome: Outcome) -> str:
    sign = "✓" if outcome.score >= 0.999 else ("✗" if outcome.score <= 0 else "~")
    covered = "" if outcome.recall is None else f"\nrecall {outcome.recall:.2f}"
    return printable(f"{sign} {textwrap.shorten(outcome.prediction or '', 22, placeholder='…')}{covered}")
