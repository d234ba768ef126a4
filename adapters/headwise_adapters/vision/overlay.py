"""What was kept of a picture, drawn over it: kept tokens in colour with an outline, dropped ones grey and hatched.

Outline and hatching have a dark and a light line each, so they are seen on dark and on bright pictures alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image

EDGE = 672
"""Pixels along the longer edge of what is drawn, about."""

DARK, LIGHT = (16, 16, 16), (255, 255, 255)
UNSEEN, DROPPED, MERGED, KEPT = range(4)
"""What became of a place: no token shows it; its token was dropped; was merged into others; stayed."""

_FINEST = 6  # pixels; smaller tokens have no hatching and no outline
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

Places = npt.NDArray[np.int8]


@attrs.frozen(eq=False)
class Tile:
    """A grid of visual tokens on a picture.

    ``grid``: its rows and columns. ``box``: its left, top, right and bottom in pixels of the picture. It reaches beyond
    the picture where borders made it square, and covers a part where only that was seen. ``tokens``: the number of each
    token in reading order; None where they count from 0.
    """

    grid: tuple[int, int]
    box: tuple[float, float, float, float]
    tokens: Sequence[int] | None = None

    @property
    def cell(self) -> float:
        """Pixels of the picture along the shorter edge of a token."""
        left, top, right, bottom = self.box
        return min((right - left) / self.grid[1], (bottom - top) / self.grid[0])


def square(size: tuple[int, int], grid: tuple[int, int], *, padded: bool) -> Tile:
    """The square in which a tower sees a picture of this width and height: with borders, else its centre.

    Where an odd number of pixels is split, the second part is the larger one, as image processors do it.
    """
    edge = (max if padded else min)(size)
    left, top = (-((edge - length) // 2) if padded else (length - edge) // 2 for length in size)
    return Tile(grid, (left, top, left + edge, top + edge))


def drawn(
    picture: Image.Image, tiles: Sequence[Tile], kept: Iterable[int], *, merged: Iterable[int] = (), edge: int = EDGE
) -> Image.Image:
    """A copy of the picture that shows which tokens of its ``tiles`` were kept; its longer side has about ``edge`` px.

    ``merged``: dropped tokens of which something went into kept ones; they are hatched the other way and stay half in
    colour. What no tile shows is paler and not hatched. Tiles that come later lie over earlier ones.
    """
    shown, scale = _scaled(picture.convert("RGB"), tiles, edge)
    places = _places(shown.size, tiles, scale, set(kept), set(merged))
    cell = min((tile.cell for tile in tiles), default=0.0) * scale
    pixels = _faded(np.asarray(shown, dtype=np.float32), places, flat=cell < _FINEST)
    if cell >= _FINEST:
        _hatch(pixels, places, max(6, round(cell / 3)))
        _outline(pixels, places == KEPT, max(1, round(cell / 14)))
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


def untouched(picture: Image.Image, tiles: Sequence[Tile], edge: int = EDGE) -> Image.Image:
    """The picture itself, as large as :func:`drawn` makes it."""
    return _scaled(picture.convert("RGB"), tiles, edge)[0]


def _scaled(picture: Image.Image, tiles: Sequence[Tile], edge: int) -> tuple[Image.Image, float]:
    """The picture at a scale at which tokens of the first tile are whole pixels wide; and the scale."""
    scale = edge / max(picture.size)
    if tiles:
        scale = max(1, round(tiles[0].cell * scale)) / tiles[0].cell
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return (picture if size == picture.size else picture.resize(size, how)), scale


def _places(size: tuple[int, int], tiles: Sequence[Tile], scale: float, kept: set[int], merged: set[int]) -> Places:
    """What became of each pixel, int8 (height, width)."""
    places = np.full((size[1], size[0]), UNSEEN, dtype=np.int8)
    for tile in tiles:
        (rows, columns), (left, top, right, bottom) = tile.grid, tile.box
        row = np.floor(((np.arange(size[1]) + 0.5) / scale - top) * rows / (bottom - top)).astype(int)
        column = np.floor(((np.arange(size[0]) + 0.5) / scale - left) * columns / (right - left)).astype(int)
        numbers = range(rows * columns) if tile.tokens is None else tile.tokens
        states = [KEPT if one in kept else MERGED if one in merged else DROPPED for one in numbers]
        inside = np.ix_((row >= 0) & (row < rows), (column >= 0) & (column < columns))
        y, x = row[(row >= 0) & (row < rows)], column[(column >= 0) & (column < columns)]
        places[inside] = np.array(states, dtype=np.int8).reshape(rows, columns)[np.ix_(y, x)]
    return places


def _faded(pixels: npt.NDArray[np.float32], places: Places, *, flat: bool) -> npt.NDArray[np.float32]:
    """Kept places as they are, dropped ones in greys; ``flat``: greys far from the picture's mean, without lines."""
    grey = np.repeat((pixels @ _LUMA)[..., None], 3, axis=2)
    ground = (50.0 if grey.mean() > 127 else 215.0) if flat else 128.0
    faded = {UNSEEN: 200 + 0.2 * (grey - 128), DROPPED: ground + 0.3 * (grey - 128)}
    faded[MERGED] = 0.5 * faded[DROPPED] + 0.5 * pixels
    for state, values in faded.items():
        pixels = np.where((places == state)[..., None], values, pixels)
    return pixels


def _hatch(pixels: npt.NDArray[np.float32], places: Places, period: int) -> None:
    """Draw diagonal lines over what was dropped, the other way where it was merged."""
    rows, columns = np.indices(places.shape)
    for state, along in ((DROPPED, rows + columns), (MERGED, rows - columns)):
        for shift, colour in ((0, DARK), (1, LIGHT)):
            lines = (places == state) & (along % period == shift)
            pixels[lines] = 0.55 * pixels[lines] + 0.45 * np.array(colour, dtype=np.float32)


def _outline(pixels: npt.NDArray[np.float32], kept: npt.NDArray[np.bool_], width: int) -> None:
    """Draw a dark line just inside the kept places, and a light one inside that."""
    inner = _eroded(kept, width)
    pixels[kept & ~inner] = DARK
    pixels[inner & ~_eroded(inner, width)] = LIGHT


def _eroded(mask: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """The places of a mask that are farther than ``width`` from everything outside it, and from the picture's edge."""
    for axis in (0, 1):
        wide = np.pad(mask, [(width, width) if one == axis else (0, 0) for one in (0, 1)])
        mask = np.asarray(np.lib.stride_tricks.sliding_window_view(wide, 2 * width + 1, axis=axis).all(axis=-1))
    return mask
