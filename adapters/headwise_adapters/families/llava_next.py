"""LLaVA-NeXT (LLaVA-1.6): LLaVA that sees an image as one small picture of it all and several crops (anyres).

What the crops show beyond the image's edges is cut off again, and a newline token ends each row of what is left. Which
crop a token comes from is found by letting the model pack the numbers of the patches the way it packs their features.

Budgets are given for an image of as many pictures as it can become (2880 tokens), and scale with what an image has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from headwise.geometry import most_pictures
from headwise_adapters.families.llava import LlavaAdapter
from headwise_adapters.vision.images import Integers, Picture, Piece

_NEWLINE = -1.0


class LlavaNextAdapter(LlavaAdapter):
    """An image is a picture of it all and its crops, each of them a piece; newlines belong to no piece."""

    stock = "LlavaNextForConditionalGeneration"

    def visual_tokens(self) -> int:
        """Of the image that is cut into the most crops, without newlines."""
        pictures = most_pictures(self.config.image_grid_pinpoints, self.config.vision_config.image_size)
        return pictures * self.of_a_picture

    @property
    def of_a_picture(self) -> int:
        """Visual tokens of one crop, or of the small picture of it all."""
        return super().visual_tokens()

    def pictures(self, call: Mapping[str, Any]) -> list[Picture]:
        """One per row of ``image_sizes``."""
        sizes, pixels = call["image_sizes"], call["pixel_values"]
        pinpoints, side = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        counts = [image_size_to_num_patches(size, pinpoints, side) for size in sizes]
        if pixels.ndim == 5:  # one image after the other, filled up to the most pictures
            pixels = torch.cat([image[:count] for image, count in zip(pixels, counts, strict=True)])
        found, first = [], 0
        for count, numbers in zip(counts, self._packed(counts, sizes), strict=True):
            found.append(Picture(len(numbers), self._pieces(first, numbers), pixels[first : first + count]))
            first += count
        return found

    def _packed(self, counts: list[int], sizes: Any) -> list[Integers]:
        """For every token of each image, crop * tokens of a crop + patch, or -1 for a newline."""
        visual = self.of_a_picture
        numbers = [torch.arange(count * visual, dtype=torch.float64).view(count, visual, 1) for count in counts]
        newline, strategy = torch.full((1,), _NEWLINE), self.config.vision_feature_select_strategy
        packed, _ = self.inner.pack_image_features(numbers, sizes, strategy, image_newline=newline)
        return [tokens.flatten().long().numpy() for tokens in packed]

    def _pieces(self, first: int, numbers: Integers) -> tuple[Piece, ...]:
        """The crops of one image, whose picture of it all is number ``first`` of the tower."""
        visual = self.of_a_picture
        crops = np.where(numbers == _NEWLINE, -1, numbers // visual)
        found = ((int(crop), np.flatnonzero(crops == crop)) for crop in np.unique(crops) if crop >= 0)
        return tuple(
            Piece(source=first + crop, tokens=tokens, patches=patches, grid=self._rectangle(patches))
            for crop, tokens, patches in ((crop, tokens, numbers[tokens] % visual) for crop, tokens in found)
        )

    def _rectangle(self, patches: Integers) -> tuple[int, int] | None:
        """Rows and columns of what is left of a crop, of which only edges were cut off."""
        if self.grid is None:
            return None
        rows, columns = (len(np.unique(axis)) for axis in divmod(patches, self.grid[1]))
        return (rows, columns) if rows * columns == len(patches) else None
