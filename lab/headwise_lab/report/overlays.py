"""Kept tokens drawn onto example images, several strategies side by side, where the strategies disagree.

The visual tokens of one square image form a square grid in raster order; an image that is not square is taken to have
been cropped to its centre, as the CLIP processor of LLaVA does.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image, UnidentifiedImageError

from headwise.errors import DataError
from headwise_lab.records import read_outcomes
from headwise_lab.report.comparison import BASELINE, CONTROL, Cell, Comparison, Row
from headwise_lab.report.figures import GREY, INK, Figure, new_canvas, save

_EXAMPLES = 3
_STRATEGIES = 6
_BOX = "#ffb000"


@attrs.frozen(eq=False)
class Example:
    """A question with what each strategy kept and answered."""

    question: Mapping[str, Any]
    image: Path
    outcomes: Mapping[str, Mapping[str, Any]]


def overlays(comparison: Comparison, source: Path, folder: Path) -> tuple[Figure | None, str | None]:
    """The figure, or None and a note that says why there is none. ``source`` holds the outcomes."""
    row = _row(comparison)
    if row is None:
        return None, None
    strategies = _strategies(row)
    try:
        outcomes = {name: _by_question(row.cells[name], source) for name in strategies}
    except DataError:
        return None, f"{comparison.title}: no overlay of kept tokens, since outcomes are missing."
    side = _side(outcomes, row)
    if side is None:
        return None, f"{comparison.title}: no overlay of kept tokens, since they form no square grid."
    examples, missing = _examples(outcomes, source)
    if not examples:
        note = f"{comparison.title}: no overlay of kept tokens, since "
        return None, note + ("the image files are gone." if missing else "no question tells the strategies apart.")
    path = folder / f"{comparison.slug}-kept.png"
    _draw(examples, strategies, side, path)
    heads = "all heads" if row.heads == "all" else f"{row.head_label} heads"
    caption = f"{comparison.title}: tokens kept at {row.budget} with {heads}, on examples where strategies disagree."
    return Figure(path, caption, comparison.slug), None


def _row(comparison: Comparison) -> Row | None:
    """The row with most strategies; of those the one that keeps least, where choice matters most."""
    rows = [row for row in comparison.rows if len(row.cells) > 1]
    return min(rows, key=lambda row: (-len(row.cells), row.processed), default=None)


def _strategies(row: Row) -> list[str]:
    """Baseline and control, then best and worst scores, as many as fit."""
    ranked = sorted((name for name, cell in row.cells.items() if cell.role == "strategy"),
                    key=lambda name: -row.cells[name].value)  # fmt: skip
    references = [name for name in (BASELINE, CONTROL) if name in row.cells]
    room = _STRATEGIES - len(references)
    if len(ranked) > room:
        ranked = [*ranked[: room - room // 2], *ranked[len(ranked) - room // 2 :]]
    return [*references, *ranked]


def _by_question(cell: Cell, source: Path) -> dict[str, dict[str, Any]]:
    return {outcome["id"]: outcome for outcome in read_outcomes(source, cell.trials[0].id)}


def _side(outcomes: Mapping[str, Mapping[str, Mapping[str, Any]]], row: Row) -> int | None:
    """Tokens along one edge of the image, where kept tokens lie on a square grid."""
    visual = next(iter(row.cells.values())).trials[0].record["budget"].get("visual")
    if not isinstance(visual, int) or visual < 1 or math.isqrt(visual) ** 2 != visual:
        return None
    kept = [index for group in outcomes.values() for outcome in group.values() for index in outcome.get("kept") or ()]
    return math.isqrt(visual) if kept and min(kept) >= 0 and max(kept) < visual else None


def _examples(outcomes: Mapping[str, Mapping[str, Mapping[str, Any]]], source: Path) -> tuple[list[Example], bool]:
    """Questions of different images on which strategies disagree most; and whether image files were missing."""
    shared = set.intersection(*(set(group) for group in outcomes.values()))
    candidates = [{name: group[key] for name, group in outcomes.items()} for key in sorted(shared)]
    candidates = [candidate for candidate in candidates if all(given.get("kept") for given in candidate.values())]
    candidates.sort(key=lambda candidate: _disagreement(list(candidate.values())), reverse=True)
    examples: list[Example] = []
    missing = False
    for candidate in candidates:
        question = next(iter(candidate.values()))
        image = _find(question.get("image"), source)
        if image is None:
            missing = True
        elif image not in [example.image for example in examples]:
            examples.append(Example(question, image, candidate))
        if len(examples) == _EXAMPLES:
            break
    return examples, missing


def _disagreement(given: Sequence[Mapping[str, Any]]) -> tuple[bool, bool, float]:
    """Some right and some wrong first, boxes to look at next, then how little the kept tokens overlap."""
    pairs = itertools.combinations([set(outcome["kept"]) for outcome in given], 2)
    distances = [1 - len(left & right) / len(left | right) for left, right in pairs]
    mixed = len({float(outcome["score"]) for outcome in given}) > 1
    return mixed, bool(given[0].get("boxes")), sum(distances) / max(len(distances), 1)


def _find(name: object, source: Path) -> Path | None:
    if not isinstance(name, str) or not name:
        return None
    return next((path for path in (Path(name), source / name) if path.is_file()), None)


def _draw(examples: Sequence[Example], strategies: Sequence[str], side: int, path: Path) -> None:
    width = len(strategies) + 1
    canvas = new_canvas(1.75 * width, 2.2 * len(examples) + 0.2)
    panels = canvas.subplots(len(examples), width, squeeze=False)
    for line, example in enumerate(examples):
        picture, boxes = _square(example.image, example.question.get("boxes") or ())
        _show(panels[line][0], picture, boxes)
        panels[line][0].set_xlabel(_question(example.question), fontsize=7, color=INK)
        for panel, name in zip(panels[line][1:], strategies, strict=True):
            outcome = example.outcomes[name]
            _show(panel, dimmed(picture, outcome["kept"], side), boxes)
            panel.set_xlabel(_answer(outcome), fontsize=7, color=INK if outcome["score"] else GREY)
        if line == 0:
            for panel, name in zip(panels[0], ["the image", *strategies], strict=True):
                panel.set_title("\n".join(textwrap.wrap(name, 18)), fontsize=8, fontweight="bold", color=INK)
    save(canvas, path)


def _square(path: Path, boxes: Sequence[Sequence[float]]) -> tuple[np.ndarray[Any, Any], list[tuple[float, ...]]]:
    """The centre square of an image as RGB in 0..1, and the boxes moved along."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{path} is not an image that can be read; restore it or run the trial again") from error
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    pixels = np.asarray(image.crop((left, top, left + edge, top + edge)), dtype=np.float32) / 255
    return pixels, [(x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes]


def dimmed(picture: np.ndarray[Any, Any], kept: Sequence[int], side: int) -> np.ndarray[Any, Any]:
    """Dropped patches faded towards white and grey, kept ones as they are."""
    rows = np.arange(picture.shape[0]) * side // picture.shape[0]
    columns = np.arange(picture.shape[1]) * side // picture.shape[1]
    stays = np.zeros(side * side, dtype=bool)
    stays[list(kept)] = True
    mask = stays[rows[:, None] * side + columns[None, :]][..., None]
    grey = picture.mean(axis=2, keepdims=True)
    return np.where(mask, picture, 0.82 + 0.18 * grey)


def _show(panel: Any, picture: np.ndarray[Any, Any], boxes: Sequence[Sequence[float]]) -> None:
    panel.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    for x0, y0, x1, y1 in boxes:
        panel.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=_BOX, linewidth=1.4))
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set_color(GREY)
        side.set_linewidth(0.6)


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def _question(question: Mapping[str, Any]) -> str:
    text = str(question.get("question") or "").splitlines()[0] if question.get("question") else ""
    answers = question.get("answers") or ()
    wanted = f"\n→ {answers[0]}" if answers else ""
    return _plain("\n".join(textwrap.wrap(text, 28)[:3]) + wanted)


def _answer(outcome: Mapping[str, Any]) -> str:
    sign = "✓" if outcome["score"] >= 0.999 else ("✗" if outcome["score"] <= 0 else "~")
    recall = outcome.get("recall")
    covered = f"\nrecall {recall:.2f}" if isinstance(recall, int | float) else ""
    return _plain(f"{sign} {textwrap.shorten(str(outcome.get('prediction') or ''), 22, placeholder='…')}{covered}")
