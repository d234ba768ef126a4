"""Kept tokens over a picture: every pixel says what became of its token, on dark and on bright pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headwise_adapters.vision.overlay import DARK, LIGHT, Tile, drawn, square, untouched

SIDE = 336


def plain(colour, size=(SIDE, SIDE)):
    return Image.new("RGB", size, colour)


def cell(pixels, row, column, side=4):
    """The pixels of one token, of an image of ``side`` x ``side`` tokens."""
    step = pixels.shape[0] // side
    return pixels[row * step : (row + 1) * step, column * step : (column + 1) * step]


def has(pixels, colour):
    return bool((pixels == np.array(colour)).all(axis=-1).any())


def luminance(pixels):
    linear = np.where((share := pixels / 255) <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colour", [(0, 0, 0), (20, 10, 30), (128, 128, 128), (250, 240, 255), (255, 255, 255)])
def test_kept_and_dropped_differ_whatever_the_brightness(colour):
    pixels = np.asarray(drawn(plain(colour), [Tile((4, 4), (0, 0, SIDE, SIDE))], [5], edge=SIDE))
    kept, dropped = cell(pixels, 1, 1), cell(pixels, 2, 2)
    assert has(kept, DARK)
    assert has(kept, LIGHT)
    assert tuple(kept[42, 42]) == colour
    shades = luminance(dropped.reshape(-1, 3))
    assert len(np.unique(shades)) >= 3  # the ground and both lines
    assert (shades.max() + 0.05) / (shades.min() + 0.05) >= 3


def test_dropped_places_lose_their_colour_and_merged_ones_keep_half_of_it():
    pixels = np.asarray(drawn(plain((200, 40, 40)), [Tile((4, 4), (0, 0, SIDE, SIDE))], [0], merged=[1], edge=SIDE))

    def tint(shown):
        return int(np.ptp(shown.reshape(-1, 3), axis=-1).max())

    assert tint(cell(pixels, 0, 0)) > tint(cell(pixels, 0, 1)) > tint(cell(pixels, 3, 3)) == 0


def test_merged_places_are_hatched_the_other_way():
    pixels = np.asarray(drawn(plain((90, 90, 90)), [Tile((4, 4), (0, 0, SIDE, SIDE))], [0], merged=[5], edge=SIDE))
    dropped, merged = cell(pixels, 2, 2)[..., 0].astype(int), cell(pixels, 1, 1)[..., 0].astype(int)
    assert np.array_equal(dropped[1:, :-1], dropped[:-1, 1:])
    assert np.array_equal(merged[1:, 1:], merged[:-1, :-1])
    assert not np.array_equal(merged[1:, :-1], merged[:-1, 1:])


@pytest.mark.parametrize(("padded", "box"), [(False, (100, 0, 300, 200)), (True, (0, -100, 400, 300))])
def test_a_square_lies_where_the_tower_saw_it(padded, box):
    assert square((400, 200), (4, 4), padded=padded).box == box
    assert square((200, 400), (4, 4), padded=padded).box == (box[1], box[0], box[3], box[2])


def test_what_the_tower_did_not_see_is_neither_kept_nor_hatched():
    wide = plain((30, 60, 90), (400, 200))
    pixels = np.asarray(drawn(wide, [square(wide.size, (4, 4), padded=False)], range(16), edge=400))
    assert (pixels[:, :100] == pixels[0, 0]).all()
    assert (pixels[:, 300:] == pixels[0, 0]).all()
    assert tuple(pixels[100, 200]) == (30, 60, 90)


def test_borders_hold_no_pixels_of_the_picture():
    wide = plain((30, 60, 90), (400, 200))
    tile = square(wide.size, (4, 4), padded=True)
    shown = np.asarray(drawn(wide, [tile], [4], edge=400))  # the second of four rows, of which two are borders
    assert shown.shape == (200, 400, 3)
    assert tuple(shown[50, 50]) == (30, 60, 90)
    edges = [np.asarray(drawn(wide, [tile], kept, edge=400)) for kept in ([0, 1, 2, 3, 12, 13, 14, 15], [])]
    assert np.array_equal(*edges)


def test_grids_that_are_not_square_and_tiles_with_numbers_of_their_own():
    tiles = [Tile((2, 3), (0, 0, 300, 200), range(6)), Tile((2, 2), (300, 0, 500, 200), [6, 7, 9, 10])]
    pixels = np.asarray(drawn(plain((10, 90, 10), (500, 200)), tiles, [2, 9], edge=500))
    coloured = [tuple(pixels[y, x]) == (10, 90, 10) for y in (50, 150) for x in (50, 150, 250, 350, 450)]
    assert coloured == [False, False, True, False, False, False, False, False, True, False]


def test_tokens_of_few_pixels_have_no_lines():
    for colour in ((20, 20, 20), (240, 240, 240)):
        pixels = np.asarray(drawn(plain(colour), [Tile((12, 12), (0, 0, SIDE, SIDE))], [0], edge=36))
        assert pixels.shape == (36, 36, 3)
        kept, dropped = int(pixels[1, 1, 0]), pixels[12:, 12:, 0]
        assert len(np.unique(dropped)) == 1
        assert abs(kept - int(dropped[0, 0])) > 100


def test_the_picture_itself_has_the_size_of_what_is_drawn_over_it():
    tile = Tile((7, 5), (0, 0, 123, 77))
    picture = plain((1, 2, 3), (123, 77))
    assert untouched(picture, [tile]).size == drawn(picture, [tile], []).size
