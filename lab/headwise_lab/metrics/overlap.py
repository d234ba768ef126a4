"""Which of the visual tokens that a question is about were kept: recall, precision, IoU, and lift over random keeping.

Boxes are in pixels of the stored picture. Tokens are the vision tower's square grid, row by row, over the square that
CLIP's processor makes of the picture: it resizes the shortest side to the tower's side and cuts out the centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from headwise.errors import DataError

Box = tuple[float, float, float, float]  # x0, y0, x1, y1; ends excluded
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SHARE = 0.1  # a box must cover more than this share of a token, or of itself if it is smaller than a token


@attrs.frozen
class TokenOverlap:
    """Kept tokens against the tokens under one question's boxes; ``expected`` is the recall of keeping at random."""

    recall: float
    precision: float
    iou: float
    expected: float

    @property
    def lift(self) -> float:
        """Recall divided by the recall of keeping as many tokens at random; 1 where no token is kept."""
        return self.recall / self.expected if self.expected else 1.0


def grid_side(tokens: int) -> int:
    """Tokens per side of a square grid; raises DataError where their number is not a square."""
    side = isqrt(tokens)
    if side * side != tokens or not tokens:
        raise DataError(f"{tokens} visual tokens do not form a square grid, so boxes cannot be laid over them")
    return side


def after_crop(boxes: Sequence[Box], size: tuple[int, int], side: int) -> Floats:
    """Boxes of a picture of ``size`` (width, height), in pixels of the processor's side x side square: (boxes, 4).

    CLIP's processor resizes the shortest side to ``side``, rounds the longest down, and cuts out the centre, whose
    corner it rounds down. The parts of boxes outside are cut off; a box completely outside has no area.
    """
    width, height = size
    short = min(width, height)
    resized = np.array([side * width // short, side * height // short], dtype=np.float64)
    corner = (resized - side) // 2
    scale = resized / np.array([width, height], dtype=np.float64)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 2) * scale - corner
    return corners.clip(0, side).reshape(-1, 4)


def covered(boxes: ArrayLike, side: int, tokens: int, *, share: float = SHARE) -> Mask:
    """Which tokens (tokens,) the boxes (boxes, 4) lie on, all on a side x side square.

    A box lies on a token if it covers more than ``share`` of the token, or if more than ``share`` of the box is on the
    token. Without the second rule, a box much smaller than a token would lie on none.
    """
    per_side = grid_side(tokens)
    rows = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * per_side / side  # in tokens
    across = _cover(rows[:, 0], rows[:, 2], per_side)
    down = _cover(rows[:, 1], rows[:, 3], per_side)
    common = down[:, :, None] * across[:, None, :]  # (boxes, rows, columns), in token areas
    area = common.sum(axis=(1, 2), keepdims=True)
    enough = common > share * np.minimum(area, 1.0)
    return np.asarray(enough.any(axis=0).reshape(-1), dtype=np.bool_)


def _cover(start: Floats, end: Floats, cells: int) -> Floats:
    """Length of [start, end] within each unit cell; (boxes, cells)."""
    left = np.arange(cells, dtype=np.float64)
    return (np.minimum(end[:, None], left + 1) - np.maximum(start[:, None], left)).clip(0, None)


def token_mask(boxes: Sequence[Box], size: tuple[int, int], tokens: int, side: int, *, share: float = SHARE) -> Mask:
    """Which of ``tokens`` visual tokens the boxes of a picture lie on, after the processor made it side x side.

    ``size`` is the stored picture's (width, height). Raises DataError where the tokens are no square grid.
    """
    return covered(after_crop(boxes, size, side), side, tokens, share=share)


def overlap(kept: Sequence[int], truth: Mask) -> TokenOverlap | None:
    """Overlap of kept token positions with a token mask; None where the mask is empty (no boxes, or all cut off)."""
    wanted = int(truth.sum())
    if not wanted:
        return None
    keep = np.zeros_like(truth)
    keep[list(kept)] = True
    count, both = int(keep.sum()), int((keep & truth).sum())
    return TokenOverlap(
        recall=both / wanted,
        precision=both / count if count else 0.0,
        iou=both / (count + wanted - both),
        expected=count / truth.size,
    )


def mean_overlap(overlaps: Sequence[TokenOverlap | None]) -> dict[str, float] | None:
    """Means over the ``n`` questions that have boxes; lift is the mean recall over the mean expected recall."""
    known = [one for one in overlaps if one is not None]
    if not known:
        return None
    n = len(known)
    recall = sum(one.recall for one in known) / n
    precision, iou = sum(one.precision for one in known) / n, sum(one.iou for one in known) / n
    lift = TokenOverlap(recall, precision, iou, sum(one.expected for one in known) / n).lift
    return {"recall": recall, "precision": precision, "iou": iou, "lift": lift, "n": n}
