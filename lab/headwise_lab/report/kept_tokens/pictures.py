"""A picture as its file holds it, where the visual tokens lie on it, and the boxes of a question."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import attrs
from PIL import Image

from headwise.errors import DataError
from headwise_adapters.vision import overlay
from headwise_adapters.vision.overlay import Tile
from headwise_lab.benchmarks.pictures import rgb

_LARGEST = 448  # pixels along the longer edge of what a page carries
_SMALL = 160  # up to here every pixel is kept

Box = tuple[float, ...]


@attrs.frozen(eq=False)
class Shown:
    """A whole picture as RGB, the tile of its tokens, and boxes (x0, y0, x1, y1), all in its pixels."""

    image: Image.Image
    tile: Tile
    boxes: tuple[Box, ...] = ()

    @property
    def small(self) -> bool:
        """Whether it has so few pixels that each is shown."""
        return max(self.image.size) <= _SMALL

    def as_data(self) -> dict[str, object]:
        """The picture for a page. Lengths are in hundredths of its longer edge; ``box`` is that of its tokens."""
        width, height = self.scaled(self.image.size)
        return {"uri": self.data_uri(), "width": width, "height": height, "box": self.scaled(self.tile.box),
                "small": self.small}  # fmt: skip

    def scaled(self, lengths: Sequence[float]) -> list[float]:
        """Pixels as hundredths of the longer edge."""
        return [round(100 * length / max(self.image.size), 3) for length in lengths]

    def data_uri(self) -> str:
        """The image as a data URI; small images are stored without loss."""
        image = self.image.copy()
        image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        image.save(content, "WEBP", lossless=self.small, quality=80, method=4)
        return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def shown(path: Path, boxes: Sequence[Sequence[float]], grid: tuple[int, int], *, padded: bool) -> Shown:
    """The picture of a file, whose tokens lie on its centre or on all of it with borders; DataError for no picture."""
    try:
        image = rgb(path)
    except DataError as error:
        raise DataError(f"{path} is not an image that can be read; restore it or run the trial again") from error
    return Shown(image, overlay.square(image.size, grid, padded=padded), tuple(map(tuple, boxes)))
