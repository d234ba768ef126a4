"""Scenes as pictures: sprites, shifted and shaded at random, on a noisy grey background with clutter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from headwise_lab.scenes.scene import Scene
from headwise_lab.scenes.world import (
    DIGITS,
    GRID,
    PATCH,
    RGB,
    SHAPES,
    SIZE,
    SPRITES,
    TOKENS,
    WORDS,
    label_sprites,
    shape_sprite,
)

Floats = NDArray[np.float32]

SPRITE = 10  # pixels per side of a shape; the remaining 2 are room for jitter
JITTERS = (PATCH - SPRITE + 1) ** 2
FINE = 8  # supersampling of shapes
CLUTTER = 16 / TOKENS  # chance that an empty cell is loud noise
LOUD, QUIET, GRAIN = 45.0, 8.0, 6.0  # noise of clutter, of background and of sprites, in grey levels
PAPER, INK = 235, 10  # grey levels of labels


def draw(scene: Scene, seed: int) -> NDArray[np.uint8]:
    """The picture of one scene, (144, 144, 3) uint8; the seed fixes noise, jitter and shading."""
    picture: NDArray[np.uint8] = draw_batch(np.array([scene.sprites]), np.random.default_rng(seed))[0]
    return picture


def draw_batch(sprites: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures (batch, 144, 144, 3) uint8 of sprites (batch, 144); noise is drawn for the whole batch at once."""
    pictures = _background(sprites, rng)  # (batch, tokens, PATCH, PATCH, 3)
    batch, cell = np.nonzero(sprites)
    shown = sprite_table()[sprites[batch, cell], rng.integers(JITTERS, size=len(cell))]
    color, cover = shown[..., :3], shown[..., 3:]
    light = rng.uniform(0.85, 1.10, size=(len(cell), 1, 1, 1)).astype(np.float32)
    grain = GRAIN * _normal(rng, len(cell), PATCH, PATCH, 1)
    pictures[batch, cell] = pictures[batch, cell] * (1 - cover) + (color * light + grain) * cover
    tiles = pictures.reshape(-1, GRID, GRID, PATCH, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(-1, SIZE, SIZE, 3).clip(0, 255).round().astype(np.uint8)


def _background(sprites: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Grey that changes evenly across the picture, with noise, more of it in some empty cells; (batch, tokens, PATCH,
    PATCH, 3)."""
    batch = len(sprites)
    line = np.linspace(-1, 1, GRID, dtype=np.float32)
    base = rng.uniform(20, 90, size=(batch, 1, 1))
    down, right = rng.uniform(-25, 25, size=(2, batch, 1, 1))
    level = (base + down * line[:, None] + right * line).astype(np.float32).reshape(batch, TOKENS)
    loud = (rng.random((batch, TOKENS)) < CLUTTER) & (sprites == 0)
    noise = np.where(loud, LOUD, QUIET).astype(np.float32)
    grey = level[..., None, None] + noise[..., None, None] * _normal(rng, batch, TOKENS, PATCH, PATCH)
    return np.repeat(grey[..., None], 3, axis=-1)


def _normal(rng: np.random.Generator, *shape: int) -> Floats:
    return rng.standard_normal(shape, dtype=np.float32)


@cache
def sprite_table() -> Floats:
    """RGB (0-255) and cover (0-1) of every sprite at every jitter: (SPRITES, JITTERS, PATCH, PATCH, 4)."""
    table = np.zeros((SPRITES, JITTERS, PATCH, PATCH, 4), np.float32)
    for shape in SHAPES:
        cover = _shape_cover(shape)
        for color, rgb in RGB.items():
            sprite = table[shape_sprite(shape, color)]
            sprite[..., :3] = rgb
            for jitter in range(JITTERS):
                y, x = divmod(jitter, PATCH - SPRITE + 1)
                sprite[jitter, y : y + SPRITE, x : x + SPRITE, 3] = cover
    _write_labels(table)
    return table


def _write_labels(table: Floats) -> None:
    for text in DIGITS + WORDS:
        sprites = label_sprites(text)
        written = _written(text, PATCH * len(sprites))
        for i, sprite_number in enumerate(sprites):
            table[sprite_number, ..., :3] = written[:, i * PATCH : (i + 1) * PATCH, None]
            table[sprite_number, ..., 3] = 1


def _shape_cover(shape: str) -> Floats:
    """Antialiased cover of a shape, (SPRITE, SPRITE) in 0-1."""
    side = SPRITE * FINE
    image = Image.new("L", (side, side), 0)
    OUTLINES[shape](ImageDraw.Draw(image), side)
    cover = np.asarray(image.resize((SPRITE, SPRITE), Image.Resampling.LANCZOS), dtype=np.float32)
    return cover / np.float32(255)


def _cross(pen: ImageDraw.ImageDraw, n: int) -> None:
    pen.rectangle((n * 0.35, 0, n * 0.65, n), fill=255)
    pen.rectangle((0, n * 0.35, n, n * 0.65), fill=255)


def _star(pen: ImageDraw.ImageDraw, n: int) -> None:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = n / 2 * np.where(np.arange(10) % 2 == 0, 1, 0.4)
    points = np.stack([n / 2 + radii * np.cos(angles), n / 2 + radii * np.sin(angles)], axis=-1)
    pen.polygon([(float(x), float(y)) for x, y in points], fill=255)


OUTLINES: dict[str, Callable[[ImageDraw.ImageDraw, int], None]] = {
    "circle": lambda pen, n: pen.ellipse((0, 0, n - 1, n - 1), fill=255),
    "square": lambda pen, n: pen.rectangle((0, 0, n - 1, n - 1), fill=255),
    "triangle": lambda pen, n: pen.polygon([(n / 2, 0), (n, n), (0, n)], fill=255),
    "cross": _cross,
    "diamond": lambda pen, n: pen.polygon([(n / 2, 0), (n, n / 2), (n / 2, n), (0, n / 2)], fill=255),
    "ring": lambda pen, n: pen.ellipse((0, 0, n - 1, n - 1), outline=255, width=int(n * 0.22)),
    "star": _star,
    "bar": lambda pen, n: pen.rectangle((0, n * 0.34, n, n * 0.66), fill=255),
}


def _written(text: str, width: int) -> Floats:
    """Dark text on a pale sheet (PATCH, width), as large as fits, in grey levels."""
    fine, stroke = 4, 1
    sheet = Image.new("L", (width * fine, PATCH * fine), PAPER)
    pen = ImageDraw.Draw(sheet)
    for size in range(PATCH * fine, 0, -1):  # Pillow's own font: no system font is needed
        font = ImageFont.load_default(size=size)
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font, stroke_width=stroke)
        if right - left <= sheet.width - 4 and bottom - top <= sheet.height - 8:
            break
    corner = ((sheet.width - right - left) / 2, (sheet.height - bottom - top) / 2)
    pen.text(corner, text, font=font, fill=INK, stroke_width=stroke, stroke_fill=INK)
    return np.asarray(sheet.resize((width, PATCH), Image.Resampling.LANCZOS), dtype=np.float32)
