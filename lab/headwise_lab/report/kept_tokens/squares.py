"""An image as the vision tower sees it (its centre, or all of it with borders), and the boxes of a question in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import attrs
from PIL import Image

from headwise.errors import DataError
from headwise_lab.benchmarks.pictures import rgb

_LARGEST = 336  # pixels along an edge; what LLaVA-1.5 sees
_SMALL = 160  # up to here every pixel is kept

_BORDER = (122, 116, 104)  # CLIP's mean colour, as LLaVA pads

Box = tuple[float, ...]


@attrs.frozen(eq=False)
class Square:
    """The square of an image as RGB, and boxes (x0, y0, x1, y1) in its pixels."""

    image: Image.Image
    boxes: tuple[Box, ...]

    @property
    def shares(self) -> list[list[float]]:
        """The boxes as shares of the edge, between 0 and 1."""
        edge = self.image.width
        return [[round(min(max(value / edge, 0), 1), 4) for value in box] for box in self.boxes]

    @property
    def small(self) -> bool:
        """Whether it has so few pixels that each is shown."""
        return self.image.width <= _SMALL

    def data_uri(self) -> str:
        """The image as a data URI; small images are stored without loss."""
        image = self.image
        if image.width > _LARGEST:
            image = image.resize((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        image.save(content, "WEBP", lossless=self.small, quality=80, method=4)
        return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def square(path: Path, boxes: Sequence[Sequence[float]], *, padded: bool = False) -> Square:
    """Cut the centre out of an image file, or put borders around it; raises DataError where it is no image."""
    try:
        image = rgb(path)
    except DataError as error:
        raise DataError(f"{path} is not an image that can be read; restore it or run the trial again") from error
    edge = (max if padded else min)(image.size)
    # As the image processor does it: where an odd number of pixels is split, the second border is the wider one.
    left, top = (-((edge - length) // 2) if padded else (length - edge) // 2 for length in image.size)
    shown = Image.new("RGB", (edge, edge), _BORDER)
    shown.paste(image, (-left, -top))
    return Square(shown, tuple((x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in boxes))
