"""Figures of kept tokens on example images, with several strategies side by side, where they disagree.

The visual tokens of one square image form a square grid, row by row. An image that is not square is cropped to its
centre or gets borders, as the record says.
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

from headwise.printing import printable
from headwise_lab.report.kept_tokens.choices import KeptSetting, placed
from headwise_lab.report.kept_tokens.squares import Box, square
from headwise_lab.report.page.canvas import GREY, INK, STYLE, Figure, new_canvas, save_all
from headwise_lab.store.outcome_types import QuestionOutcome as Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXAMPLES = 3
_BOX = "#ffb000"

Pixels = npt.NDArray[np.generic]

Example = tuple[Path, Mapping[str, Outcome]]
"""An image, and strategy -> outcome on a question about it."""


def overlay(
    choice: KeptSetting, examples: Sequence[Example], side: int, *, title: str, slug: str, folder: Path
) -> Figure:
    """Draw the figure: for each example a line with the image and what each strategy kept of it."""
    path = folder / f"{slug}-kept.png"
    with matplotlib.rc_context(STYLE):
        _draw(examples[:EXAMPLES], side, path, padded=placed(choice) == "padded")
    caption = f"{title}: tokens kept at {choice.label}, on examples where strategies disagree."
    return Figure(path, caption, slug, choice.budget, choice.heads)


def _draw(examples: Sequence[Example], side: int, path: Path, *, padded: bool) -> None:
    strategies = list(examples[0][1])
    width = len(strategies) + 1
    canvas = new_canvas(1.75 * width, 2.2 * len(examples) + 0.2)
    panels = canvas.subplots(len(examples), width, squeeze=False)
    for line, (image, outcomes) in enumerate(examples):
        first = outcomes[strategies[0]]
        shown = square(image, first.boxes, padded=padded)
        picture = np.asarray(shown.image, dtype=np.float32) / 255
        show_panel(panels[line][0], picture, shown.boxes)
        panels[line][0].set_xlabel(_question(first), fontsize=7, color=INK)
        for panel, name in zip(panels[line][1:], strategies, strict=True):
            outcome = outcomes[name]
            show_panel(panel, dimmed(picture, outcome.kept, side), shown.boxes)
            panel.set_xlabel(_answer(outcome), fontsize=7, color=INK if outcome.score else GREY)
        if line == 0:
            for panel, name in zip(panels[0], ["the image", *strategies], strict=True):
                panel.set_title("\n".join(textwrap.wrap(name, 18)), fontsize=8, fontweight="bold", color=INK)
    save_all(canvas, path)


def dimmed(picture: Pixels, kept: Sequence[int], side: int, *, darker: bool = False) -> Pixels:
    """The image with dropped patches in pale grey, or in dark grey if ``darker``, and kept ones unchanged."""
    rows = np.arange(picture.shape[0]) * side // picture.shape[0]
    columns = np.arange(picture.shape[1]) * side // picture.shape[1]
    stays = np.zeros(side * side, dtype=bool)
    stays[list(kept)] = True
    mask = stays[rows[:, None] * side + columns[None, :]][..., None]
    grey = picture.mean(axis=2, keepdims=True)
    return np.where(mask, picture, 0.3 * grey if darker else 0.82 + 0.18 * grey)


def show_panel(panel: Axes, picture: Pixels, boxes: Sequence[Box]) -> None:
    """A picture in shares of full brightness, boxes (x0, y0, x1, y1) in its pixels drawn over it, and a thin frame."""
    panel.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    for x0, y0, x1, y1 in boxes:
        panel.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=_BOX, linewidth=1.4))
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
