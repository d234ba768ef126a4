"""How many of the visual tokens a question is about were kept: recall, precision, IoU, and lift over random keeping.

Boxes are in pixels of the picture as stored; tokens are the square grid of the vision tower, row by row, over what
the CLIP processor leaves of the picture: shortest side resized to the tower's side, then the centre cut out.
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

SHARE = 0.1  # of a token (or of a box smaller than one) that must be covered; less is a rim, not evidence


@attrs.frozen
class TokenOverlap:
    """Kept tokens against the tokens under one question's boxes; ``expected`` is the recall of keeping at random."""

    recall: float
    precision: float
    iou: float
    expected: float

    @property
    def lift(self) -> float:
        """Recall over what keeping as many at random would reach; 1 where nothing is kept, since both reach 0."""
        return self.recall / self.expected if self.expected else 1.0


def grid_side(tokens: int) -> int:
    """Tokens per side of a square grid; raises DataError where the number is no square."""
    side = isqrt(tokens)
    if side * side != tokens or not tokens:
        raise DataError(f"{tokens} visual tokens do not form a square grid, so boxes cannot be laid over them")
    return side


def after_crop(boxes: Sequence[Box], size: tuple[int, int], side: int) -> Floats:
    """Boxes of a picture of ``size`` (width, height) on the processor's side x side square; (boxes, 4) in its pixels.

    As CLIP's processor does it: shortest side to ``side``, longest rounded down, centre cut out, its corner rounded
    down. What falls outside is cut off; a box wholly outside keeps no area.
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

    A box lies on a token when it covers more than ``share`` of it, or when more than ``share`` of the box is there:
    a box much smaller than a token would cover none otherwise.
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
    """Which of ``tokens`` visual tokens the boxes of a picture lie on, once the processor has made it side x side.

    ``size`` is the stored picture's (width, height). Raises DataError where the tokens are no square grid.
    """
    return covered(after_crop(boxes, size, side), side, tokens, share=share)


def overlap(kept: Sequence[int], truth: Mask) -> TokenOverlap | None:
    """Kept token positions against a token mask; None where the mask is empty (no boxes, or all cut off)."""
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
