"""Records of what a picture holds."""

from __future__ import annotations

import attrs

from headwise_lab.scenes.world import TOKENS, label_sprites, shape_sprite


@attrs.frozen
class Thing:
    """A coloured shape in one cell."""

    shape: str
    color: str
    cell: int


@attrs.frozen
class Label:
    """Something written: a digit in one cell or a word over two."""

    kind: str  # "digit" or "word"
    text: str
    cells: tuple[int, ...]


@attrs.frozen
class Scene:
    """The things and labels of one picture; no two share a cell."""

    things: tuple[Thing, ...]
    labels: tuple[Label, ...] = ()

    @property
    def sprites(self) -> tuple[int, ...]:
        """The sprite of each of the 144 cells, row by row."""
        cells = [0] * TOKENS
        for thing in self.things:
            cells[thing.cell] = shape_sprite(thing.shape, thing.color)
        for label in self.labels:
            for cell, sprite in zip(label.cells, label_sprites(label.text), strict=True):
                cells[cell] = sprite
        return tuple(cells)
