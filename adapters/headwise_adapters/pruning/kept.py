"""What a forward kept of its pictures, put together at its end: numbers and places, none of the model's tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from headwise.errors import ModelError
from headwise.kept import UNKNOWN, Integers, KeptRow
from headwise_adapters.pruning.forward import Forward
from headwise_adapters.vision.images import Picture
from headwise_adapters.vision.showing import SeenImage


def kept_rows(forward: Forward, *, merged: bool) -> list[tuple[KeptRow, list[SeenImage]]]:
    """What is left of each row's visual tokens, and its images; ``merged``: dropped ones are merged into those left."""
    columns = None if forward.tokens is None else forward.tokens.index.cpu().numpy()
    try:
        pictures = forward.pictures
    except ModelError:  # features and tokens that do not match concern strategies that look at pictures, and no others
        pictures = [[] for _ in forward.entered]
    found = []
    for row, own in enumerate(pictures):
        left, numbers = forward.layout.image(row), forward.visual_numbers(row)
        places = np.full((forward.entered[row], 4), UNKNOWN)
        for number, (start, picture) in enumerate(_starts(own)):
            places[start : start + picture.visual] = _places(number, picture)
        kept = KeptRow(
            visual=forward.entered[row],
            numbers=numbers,
            columns=left if columns is None else columns[row][left],
            places=places[numbers],
            merged=merged,
        )
        found.append((kept, [_seen(start, picture) for start, picture in _starts(own)]))
    return found


def _starts(pictures: list[Picture]) -> Iterator[tuple[int, Picture]]:
    """The images of a row, each with the number of its first visual token."""
    start = 0
    for picture in pictures:
        yield start, picture
        start += picture.visual


def _places(image: int, picture: Picture) -> Integers:
    """Image, crop, row and column of each of an image's tokens, (visual, 4)."""
    found = np.full((picture.visual, 4), UNKNOWN)
    found[:, 0] = image
    for crop, piece in enumerate(picture.pieces):
        found[piece.tokens, 1] = crop
        if piece.grid is not None:
            found[piece.tokens, 2], found[piece.tokens, 3] = divmod(np.arange(len(piece.tokens)), piece.grid[1])
    return found


def _seen(start: int, picture: Picture) -> SeenImage:
    """An image, with the grid of the picture of it all, and that of its crops together."""
    first, *crops = picture.pieces
    if first.grid is None:
        return SeenImage(start=start)
    grids = [(first.grid, first.tokens.tolist())]
    numbers = np.sort(np.concatenate([crop.tokens for crop in crops])) if crops else np.empty(0, dtype=np.int64)
    # A newline stands behind each line of the crops, so that lines are what has no gap in it.
    lines = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1) if crops else []
    if len({len(line) for line in lines}) == 1:
        grids.append(((len(lines), len(lines[0])), numbers.tolist()))
    pixels = picture.pixels[0] if picture.pixels.ndim == 4 else picture.pixels
    return SeenImage(start=start, grids=grids, brightness=_brightness(pixels, first.grid))


def _brightness(pixels: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """Mean of the pixels behind each token, (rows, columns), of a picture (c, height, width) or patches (n, values).

    Patches of one token stand side by side. None where neither fits the grid.
    """
    if pixels.ndim == 3:
        return torch.nn.functional.adaptive_avg_pool2d(pixels.detach().float().mean(dim=0)[None], grid)[0]
    if pixels.ndim == 2 and len(pixels) % (grid[0] * grid[1]) == 0:
        return pixels.detach().float().mean(dim=-1).view(*grid, -1).mean(dim=-1)
    return None
