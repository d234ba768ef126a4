"""How the images of a prompt become visual tokens: which tokens belong to which picture that the vision tower saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs
import numpy as np
import numpy.typing as npt

from headwise.errors import ModelError

if TYPE_CHECKING:  # families are asked for shapes without torch
    from torch import Tensor

Integers = npt.NDArray[np.int64]
Found = TypeVar("Found")


@attrs.frozen(eq=False, kw_only=True)
class Piece:
    """One picture as the vision tower saw it: a whole image, or one crop of an image cut into crops.

    ``source``: its number among all pictures of the tower's last call. ``tokens``: which of the image's visual tokens
    are its, ascending. ``patches``: for each of them, its place among the picture's features. ``grid``: rows and
    columns of the tokens in reading order, None where they do not fill a grid.
    """

    source: int
    tokens: Integers
    patches: Integers
    grid: tuple[int, int] | None = None


@attrs.frozen(eq=False)
class Picture:
    """One image of a prompt: its ``visual`` tokens, newlines included, and the pieces most of them belong to.

    ``pixels`` are what the tower was given of it, of any shape; they tell one image from another.
    """

    visual: int
    pieces: tuple[Piece, ...]
    pixels: Tensor


def whole(source: int, visual: int, pixels: Tensor, grid: tuple[int, int] | None = None) -> Picture:
    """An image that is a single piece, every token of it in order."""
    everything = np.arange(visual)
    return Picture(visual, (Piece(source=source, tokens=everything, patches=everything, grid=grid),), pixels)


Arguments = Mapping[str, Any]
"""What a call of ``get_image_features`` was given, by name."""

Pictures = Callable[[Arguments], list[Picture]]
"""From the bound arguments of a call of ``get_image_features`` to its images, in the order of the prompts.

`generate` calls it before the first forward and hands on features only, so this call is what tells images apart.
"""


class VisionCapture(Protocol):
    """Activations recorded in the vision tower's last call: one tensor per picture, in the order of ``source``.

    A family whose projector merges several patches into one token gives one entry per token: features side by side,
    saliency and keys averaged.
    """

    def features(self) -> list[Tensor]:
        """(n, c) each: output of the layer that the model reads, without CLS."""
        ...

    def saliency(self) -> list[Tensor]:
        """float32 (n,) each: attention in that layer, averaged over heads, from CLS or else from all patches."""
        ...

    def keys(self) -> list[Tensor]:
        """(n, head_dim) each: keys of that layer, averaged over heads."""
        ...


def captured(found: Found | None) -> Found:
    """What was recorded; raises ModelError where nothing was, because the vision tower did not run."""
    if found is None:
        raise ModelError(
            "the vision tower did not run where headwise could see it, and this strategy looks at the tower;"
            " let the model see pixel_values, inside the `with` block"
        )
    return found


Look = Callable[[], AbstractContextManager[VisionCapture]]
"""Makes a context in which what the tower computes in this thread or task is recorded in the capture given."""


class Tower(Protocol):
    """A vision tower whose activations can be recorded."""

    def watched(self) -> AbstractContextManager[Look]:
        """Inside the context, the tower can be recorded by the ``Look`` that is given; its attention stays as it is."""
        ...


def shared_out(pictures: Sequence[Picture], entered: Sequence[int]) -> list[list[Picture]]:
    """The pictures of each row of a batch, from the visual tokens that each row entered with.

    Beams repeat rows one after the other, pictures are there once or as often as their row. Raises ModelError where
    pictures and tokens do not match.
    """
    total, once = sum(entered), sum(picture.visual for picture in pictures)
    times = max(1, total // once) if once else 1
    left, rows = list(pictures), []
    for row in range(0, len(entered), times):
        own: list[Picture] = []
        while sum(picture.visual for picture in own) < entered[row] and left:
            own.append(left.pop(0))
        rows += [own] * times
    matched = all(sum(picture.visual for picture in own) == count for own, count in zip(rows, entered, strict=False))
    if len(rows) != len(entered) or left or not matched:
        raise ModelError(
            f"the prompts hold {', '.join(map(str, entered))} visual tokens, which the images of"
            f" {', '.join(str(picture.visual) for picture in pictures) or 'no'} tokens do not fill in order"
        )
    return rows
