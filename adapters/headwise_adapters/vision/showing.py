"""What was kept of the images of a forward, drawn over the user's own pictures, once they are known to be the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from headwise.errors import DataError
from headwise_adapters.vision.overlay import Tile, drawn, square, untouched

Floats = npt.NDArray[np.floating]
Given = Image.Image | str | os.PathLike[str]

GAP = 8  # pixels between pictures
BORDER = (122, 116, 104)  # CLIP's mean colour, with which pictures are made square
ALIKE = 0.75  # correlation of brightnesses from which on two pictures are the same
EVEN = 1 / 255  # pictures whose brightness differs by less, of the whole range, have one colour


@attrs.frozen(eq=False, kw_only=True)
class SeenImage:
    """One image of a row as the model saw it, of which nothing but numbers is kept.

    ``start``: the row's number of its first visual token. ``grids``: shape (rows, columns), and the numbers of the
    tokens that fill it in reading order, counted in the image; each grid covers all that was seen of the image, such as
    first the small picture of it all, then the crops together. None where tokens fill no grid. ``brightness``: mean of
    the pixels behind each token of the first grid, in the scale that the model was given; None where it is not known.
    """

    start: int
    grids: Sequence[tuple[tuple[int, int], Sequence[int]]] = ()
    brightness: Tensor | None = None


def shown(images: Sequence[tuple[SeenImage, Sequence[int]]], given: Sequence[Given]) -> Image.Image:
    """Images one below the other: the picture itself, and what was kept on each of its grids.

    ``images``: what the model saw, each with the numbers of the row's visual tokens that were kept. Raises DataError
    where more or fewer are given, where an image's tokens fill no grid, and where one is not what the model saw.
    """
    if not images:
        raise DataError("no image was seen, or none whose tokens are known, so nothing can be shown")
    if len(given) != len(images):
        wanted = "1 image" if len(images) == 1 else f"{len(images)} images"
        raise DataError(f"the model saw {wanted}, and {len(given)} were given; give all of them, in order")
    lines = [_line(seen, kept, _opened(one)) for (seen, kept), one in zip(images, given, strict=True)]
    width = max(sum(part.width for part in line) + GAP * (len(line) - 1) for line in lines)
    sheet, top = Image.new("RGB", (width, sum(line[0].height + GAP for line in lines) - GAP), "white"), 0
    for line in lines:
        left = 0
        for part in line:
            sheet.paste(part, (left, top))
            left += part.width + GAP
        top += line[0].height + GAP
    return sheet


def _line(seen: SeenImage, kept: Sequence[int], image: Image.Image) -> list[Image.Image]:
    """An image, and what was kept of it on each grid, all of one size."""
    if not seen.grids:
        raise DataError("where the tokens of an image lie on it is not known, so they cannot be drawn over it")
    picture, box = _matched(image, seen)
    tiles = [Tile(grid, box, tokens) for grid, tokens in seen.grids]
    own = [number - seen.start for number in kept]
    found = [untouched(picture, tiles[:1]), *(drawn(picture, [tile], own) for tile in tiles)]
    return [part if part.size == found[0].size else part.resize(found[0].size) for part in found]


def _matched(image: Image.Image, seen: SeenImage) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """The picture, upright or as it is stored, and the box of it that the model saw.

    That is found by comparing brightnesses with those that the model was given. Raises DataError where none is alike.
    """
    ways, shape = list(_ways(image)), seen.grids[0][0]
    if seen.brightness is None:
        return ways[0]
    wanted = seen.brightness.float().cpu().numpy()
    alike = [_alike(_brightness(picture, box, shape), wanted) for picture, box in ways]
    best = int(np.argmax(alike))
    if alike[best] < ALIKE:
        raise DataError("this picture is not the one that the model saw; give that one")
    return ways[best]


def _ways(image: Image.Image) -> Iterator[tuple[Image.Image, tuple[float, float, float, float]]]:
    """What processors make of a picture: all of it, its central square, a square with borders; the same of it upright.

    transformers turns pictures upright that it opens itself, and none that it is given opened.
    """
    for turned in (image, ImageOps.exif_transpose(image)):
        picture = turned.convert("RGB")
        yield picture, (0, 0, *picture.size)
        for padded in (False, True):
            yield picture, square(picture.size, (1, 1), padded=padded).box


def _brightness(image: Image.Image, box: tuple[float, float, float, float], grid: tuple[int, int]) -> Floats:
    """Mean brightness 0..1 of the places (rows, columns) of a grid on a box, which may reach beyond the picture."""
    left, top, right, bottom = (round(edge) for edge in box)
    part = Image.new("RGB", (right - left, bottom - top), BORDER)
    part.paste(image, (-left, -top))
    small = part.resize((grid[1], grid[0]), Image.Resampling.BOX)
    found: Floats = np.asarray(small, dtype=np.float32).mean(axis=2) / 255
    return found


def _alike(one: Floats, other: Floats) -> float:
    """Correlation of two pictures' brightnesses; 1 where both have one colour, and 0 where one of them has."""
    one, other = one - one.mean(), other - other.mean()
    flat = [bool(np.abs(values).max() < share) for values, share in ((one, EVEN), (other, 4 * EVEN))]
    if any(flat):  # CLIP's scale divides by about a quarter
        return float(all(flat))
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def _opened(given: Given) -> Image.Image:
    """A picture, or that of a file; raises DataError where it is neither."""
    if isinstance(given, Image.Image):
        return given
    if not isinstance(given, str | os.PathLike):
        raise DataError(f"wanted a PIL picture or the path of one, got a {type(given).__name__}")
    try:
        with Image.open(given) as image:
            image.load()
            return image
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{os.fspath(given)} is no picture that can be read") from error
