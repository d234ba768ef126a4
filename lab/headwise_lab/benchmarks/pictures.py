"""Pictures as models see them: upright and in RGB, as transformers' own loader gives them, or refused.

In two cases that loader is silently wrong, and this one is not: 16-bit greys are scaled to 8 bits and not cut off at
255, and values without a known scale (32-bit whole numbers, floats) are refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from headwise.errors import DataError

SIXTEEN_BITS = 65535
EIGHT_BITS = 255
UNSCALED = ("I", "F")
TURNS = range(5, 9)
"""EXIF orientations that swap width and height."""
ORIENTATION = 0x0112


def rgb(path: Path) -> Image.Image:
    """The picture of a file (of several frames the first); raises DataError where it cannot be shown."""
    with _opened(path, str(path)) as stored:
        return _shown(stored, path)


def format_of(source: IO[bytes], what: str) -> str:
    """The name of a picture's format, such as PNG; raises DataError about ``what`` where the format is unknown."""
    with _opened(source, what) as stored:
        return str(stored.format)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture; only the beginning of its file is read. DataError as from ``rgb``."""
    with _opened(path, str(path)) as stored:
        turned = stored.getexif().get(ORIENTATION) in TURNS
        return (stored.height, stored.width) if turned else stored.size


def check(path: Path) -> tuple[int, int]:
    """As ``size_of``, after the whole file was read, at the smallest scale that its format allows."""
    with _opened(path, str(path)) as stored:
        _refuse_unscaled(stored, path)
        stored.draft("RGB", (1, 1))  # only JPEG has such scales
        stored.load()
    return size_of(path)


def remarks(path: Path) -> list[str]:
    """Sentences on what is in a picture's file and the model does not see; DataError as from ``rgb``."""
    with _opened(path, str(path)) as stored:
        frames, found = getattr(stored, "n_frames", 1), []
        if frames > 1:
            found.append(f"The picture has {frames} frames; the model sees the first.")
        if stored.has_transparency_data and np.asarray(stored.convert("RGBA"))[..., 3].min() < EIGHT_BITS:
            found.append("The picture is transparent in parts; there the model sees the colours stored behind.")
        return found


@contextmanager
def _opened(source: Path | IO[bytes], what: str) -> Iterator[Image.Image]:
    """An open picture; every error inside the block becomes a DataError about it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures and of transparency; both are fine here
            with Image.open(source) as stored:
                if not min(stored.size):
                    raise DataError(f"the picture {what} is empty: {stored.width} x {stored.height} pixels")
                yield stored
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"the picture {what} is in no format that can be read") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"the picture {what} is too large to be opened safely: {error}") from error
    except Exception as error:  # each format's reader has its own
        message = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"the picture {what} cannot be read: {' '.join(str(message).split())}") from error


def _shown(stored: Image.Image, path: Path) -> Image.Image:
    _refuse_unscaled(stored, path)
    deep = stored.mode.startswith("I")
    stored.load()
    upright = ImageOps.exif_transpose(stored)
    return (_scaled(upright) if deep else upright).convert("RGB")


def _refuse_unscaled(stored: Image.Image, path: Path) -> None:
    """Refuse pixels without a known scale. PNG has 16 bits at most, but some versions of Pillow open it as 32-bit."""
    if stored.mode in UNSCALED and stored.format != "PNG":
        kind = "floats" if stored.mode == "F" else "32-bit numbers"
        raise DataError(f"the picture {path} has {kind} for pixels, whose scale is unknown; save it with 8 or 16 bits")


def _scaled(picture: Image.Image) -> Image.Image:
    """16-bit greys as 8-bit ones."""
    values = np.asarray(picture).astype(np.float64)
    return Image.fromarray(np.rint(values * EIGHT_BITS / SIXTEEN_BITS).astype(np.uint8))
