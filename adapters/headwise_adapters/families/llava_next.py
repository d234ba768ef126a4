"""LLaVA-NeXT (LLaVA-1.6): LLaVA that sees an image as one small picture of it all and several crops (anyres).

What the crops show beyond the image's edges is cut off again, and a newline token ends each row of what is left. Which
crop a token comes from is found by letting the model pack the numbers of the patches the way it packs their features.

Budgets are given for an image of as many pictures as it can become (5 * 576 = 2880 tokens, as papers count in their
tables), by name, by folder and attached: ``tokens=640`` is an average of 640 of 2880, and a smaller image gets its
share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwise.model_config import MOST, ModelConfig
from headwise_adapters.families import llava
from headwise_adapters.families.family import VisionFamily, completed
from headwise_adapters.families.llava import CLIP_L_336, EYES, grid_of, keeps_cls, tower, vicuna
from headwise_adapters.vision.images import Arguments, Integers, Picture, Piece

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NEWLINE = -1.0
_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""What transformers takes where a configuration names none."""


def visual_tokens(config: ModelConfig) -> int:
    """Of the image that is cut into the most crops, without newlines.

    Raises ModelError where ``image_grid_pinpoints`` are not heights and widths.
    """
    of_a_picture = llava.visual_tokens(config)
    side = completed(config.part("vision_config")).count("image_size")
    pinpoints = config.get("image_grid_pinpoints") or _PINPOINTS
    pairs = [_pair(pair) for pair in pinpoints] if isinstance(pinpoints, list | tuple) else []
    sizes = [pair for pair in pairs if pair]
    if not sizes or len(sizes) < len(pairs):
        raise config.wrong("image_grid_pinpoints", "pairs of height and width in pixels")
    return of_a_picture * (1 + max((height // side) * (width // side) for height, width in sizes))


def _pair(found: object) -> tuple[int, int] | None:
    """Height and width, if it is that."""
    pair = tuple(found) if isinstance(found, list | tuple) else ()
    whole = all(type(pixels) is int and 0 < pixels <= MOST for pixels in pair)
    return (pair[0], pair[1]) if whole and len(pair) == 2 else None


def pictures(model: PreTrainedModel, call: Arguments) -> list[Picture]:
    """One per row of ``image_sizes``; the picture of it all and its crops are its pieces, newlines belong to none."""
    import torch
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    sizes, pixels = call["image_sizes"], call["pixel_values"]
    pinpoints, vision = model.config.image_grid_pinpoints, model.config.vision_config
    counts = [image_size_to_num_patches(size, pinpoints, vision.image_size) for size in sizes]
    if pixels.ndim == 5:  # one image after the other, filled up to the most pictures
        pixels = torch.cat([image[:count] for image, count in zip(pixels, counts, strict=True)])
    visual = (vision.image_size // vision.patch_size) ** 2 + keeps_cls(model.config)
    found, first = [], 0
    for count, numbers in zip(counts, _packed(model, counts, sizes, visual), strict=True):
        pieces = _pieces(first, numbers, visual, grid_of(model.config))
        found.append(Picture(len(numbers), pieces, pixels[first : first + count]))
        first += count
    return found


def _packed(model: PreTrainedModel, counts: list[int], sizes: object, visual: int) -> list[Integers]:
    """For every token of each image, crop * tokens of a crop + patch, or -1 for a newline."""
    import torch

    numbers = [torch.arange(count * visual, dtype=torch.float64).view(count, visual, 1) for count in counts]
    newline, strategy = torch.full((1,), _NEWLINE), model.config.vision_feature_select_strategy
    packed, _ = model.model.pack_image_features(numbers, sizes, strategy, image_newline=newline)
    return [tokens.flatten().long().numpy() for tokens in packed]


def _pieces(first: int, numbers: Integers, visual: int, grid: tuple[int, int] | None) -> tuple[Piece, ...]:
    """The crops of one image, whose picture of it all is number ``first`` of the tower."""
    crops = np.where(numbers == _NEWLINE, -1, numbers // visual)
    found = ((int(crop), np.flatnonzero(crops == crop)) for crop in np.unique(crops) if crop >= 0)
    return tuple(
        Piece(source=first + crop, tokens=tokens, patches=patches, grid=_rectangle(patches, grid))
        for crop, tokens, patches in ((crop, tokens, numbers[tokens] % visual) for crop, tokens in found)
    )


def _rectangle(patches: Integers, grid: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns of what is left of a crop, of which only edges were cut off."""
    if grid is None:
        return None
    rows, columns = (len(np.unique(axis)) for axis in divmod(patches, grid[1]))
    return (rows, columns) if rows * columns == len(patches) else None


_7B = {"text_config": vicuna(32, 32, 11008), "vision_config": CLIP_L_336}

LLAVA_NEXT = VisionFamily(
    name="LLaVA-NeXT",
    stock="LlavaNextForConditionalGeneration",
    eyes=EYES,
    visual_tokens=visual_tokens,
    tower=tower,
    pictures=pictures,
    shapes={
        "llava-next-7b": _7B,
        "llava-next-13b": {"text_config": vicuna(40, 40, 13824), "vision_config": CLIP_L_336},
        "llava-1.6-vicuna-7b": _7B,
    },
)
"""LLaVA-1.6 on Vicuna, Mistral and others."""
