"""Which rows of evidence a stage looks at together: prompts, or single pictures, with equally many visual tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headwise.geometry import Geometry
from headwise.plan import Stage
from headwise_adapters.pruning.choices import Integers
from headwise_adapters.pruning.evidence import Group, pieces_of
from headwise_adapters.pruning.forward import Forward
from headwise_adapters.vision.images import Piece

_Row = tuple[int, Integers, Integers, tuple[Piece, int] | None]


def groups(forward: Forward, stage: Stage, geometry: Geometry) -> Iterator[tuple[Group, int]]:
    """Everything a stage has to choose from, in groups of one size, and how many tokens each row of a group keeps.

    Rows that keep all they have are left out: nothing happens to them.
    """
    found: dict[tuple[int, int], list[_Row]] = {}
    for row, entered in enumerate(forward.entered):
        for columns, numbers, piece in _choices(forward, stage, row) if entered else ():
            keep = stage.keep_of(len(piece[0].tokens) if piece else entered, geometry)
            if keep < len(columns):
                found.setdefault((len(columns), keep), []).append((row, columns, numbers, piece))
    for (_, keep), rows in found.items():
        pieces = [piece for *_, piece in rows if piece is not None]
        columns, numbers = (np.stack([row[place] for row in rows]) for place in (1, 2))  # type: ignore[misc]
        yield Group([row for row, *_ in rows], columns, numbers, pieces or None), keep


def _choices(forward: Forward, stage: Stage, row: int) -> Iterator[tuple[Integers, Integers, tuple[Piece, int] | None]]:
    """Positions and visual numbers of the row's tokens, at once, or picture by picture where the stage is per image."""
    columns, numbers = forward.layout.image(row), forward.visual_numbers(row)
    if not stage.per_image:
        yield columns, numbers, None
        return
    for piece, start in pieces_of(forward, row):
        own = np.isin(numbers, piece.tokens + start)
        if own.any():
            yield columns[own], numbers[own], (piece, start)
