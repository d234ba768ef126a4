"""What exists in the world: the grid, colours, shapes, digits, words, and the sprite number of each.

A sprite is what one grid cell shows: 0 nothing, 1-64 a coloured shape, 65-74 a digit, 75-94 half a word.
"""

from __future__ import annotations

GRID = 12  # cells per side
PATCH = 12  # pixels per cell side; also the model's patch size
TOKENS = GRID * GRID
SIZE = GRID * PATCH  # pixels per picture side

RGB = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "purple": (150, 60, 190),
    "orange": (245, 140, 30),
    "white": (240, 240, 240),
    "cyan": (60, 205, 215),
}
COLORS = tuple(RGB)
SHAPES = ("circle", "square", "triangle", "cross", "diamond", "ring", "star", "bar")
DIGITS = tuple("0123456789")
WORDS = ("stop", "exit", "cafe", "taxi", "park", "bank", "hotel", "shop", "post", "zoo")
QUADRANTS = ("top-left", "top-right", "bottom-left", "bottom-right")

FIRST_DIGIT = 1 + len(SHAPES) * len(COLORS)
FIRST_WORD = FIRST_DIGIT + len(DIGITS)
SPRITES = FIRST_WORD + 2 * len(WORDS)

FORMS = 1 + len(SHAPES) + len(DIGITS) + 2 * len(WORDS)  # sprites that differ in more than their colour
HUES = 1 + len(COLORS)  # 0: no colour


def shape_sprite(shape: str, color: str) -> int:
    """The sprite of a coloured shape."""
    return 1 + SHAPES.index(shape) * len(COLORS) + COLORS.index(color)


def label_sprites(text: str) -> tuple[int, ...]:
    """The sprites of a digit (one cell) or a word (two cells, left to right)."""
    if text in DIGITS:
        return (FIRST_DIGIT + DIGITS.index(text),)
    left = FIRST_WORD + 2 * WORDS.index(text)
    return (left, left + 1)


def form_of(sprite: int) -> int:
    """The sprite's form in ``range(FORMS)``: 0 nothing, then shapes, digits, word halves."""
    if 0 < sprite < FIRST_DIGIT:
        return 1 + (sprite - 1) // len(COLORS)
    return sprite if sprite == 0 else sprite - FIRST_DIGIT + 1 + len(SHAPES)


def hue_of(sprite: int) -> int:
    """The sprite's colour in ``range(HUES)``: 0 for everything but coloured shapes."""
    return 1 + (sprite - 1) % len(COLORS) if 0 < sprite < FIRST_DIGIT else 0


def position(cell: int) -> tuple[int, int]:
    """The cell's (row, column)."""
    return divmod(cell, GRID)


def box(cell: int) -> tuple[int, int, int, int]:
    """The cell's pixels as (x0, y0, x1, y1), ends excluded."""
    row, column = position(cell)
    return (column * PATCH, row * PATCH, (column + 1) * PATCH, (row + 1) * PATCH)


def quadrant(cell: int) -> str:
    """Which quarter of the picture holds the cell."""
    row, column = position(cell)
    return QUADRANTS[2 * (row >= GRID // 2) + (column >= GRID // 2)]
