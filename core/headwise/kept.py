"""What a forward kept of its pictures: which visual tokens of each row are left, and where they lie on the pictures."""

from __future__ import annotations

from functools import cached_property

import attrs
import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

UNKNOWN = -1
"""In ``KeptRow.places``: not known."""


@attrs.frozen(kw_only=True)
class KeptToken:
    """One visual token that is left.

    ``position``: its column in the row that the model was given. ``image``: its image among those of the row, from 0.
    ``crop``: the picture it belongs to where an image was cut into several, of which 0 shows it all. ``row`` and
    ``column``: its place on the grid that the tokens of the picture fill. What is not known is None: the place of a
    newline token, or of any token where image features were made elsewhere.
    """

    position: int
    image: int | None
    crop: int | None
    row: int | None
    column: int | None


@attrs.frozen(eq=False, kw_only=True, repr=False)
class KeptRow:
    """What is left of one row's visual tokens after the last stage of the plan.

    ``visual``: visual tokens that the row entered with. ``numbers`` int64 (k,): those left, counted among them,
    ascending. ``columns`` int64 (k,): where they stand in the row that the model was given. ``places`` int64 (k, 4):
    image, crop, row and column of each, UNKNOWN where that is not known. ``merged``: whether the method merges dropped
    tokens into some of those left, which then stand for more than their own place.
    """

    visual: int
    numbers: Integers
    columns: Integers
    places: Integers
    merged: bool = False

    def __len__(self) -> int:
        """How many visual tokens are left."""
        return len(self.numbers)

    def __repr__(self) -> str:
        """How many are left, in one line."""
        return f"<{len(self)} of {self.visual} visual tokens kept{', some of them merged' if self.merged else ''}>"

    @property
    def positions(self) -> tuple[int, ...]:
        """Columns of the tokens left, in the row that the model was given."""
        return tuple(self.columns.tolist())

    @cached_property
    def tokens(self) -> tuple[KeptToken, ...]:
        """The tokens left, in the order of the text."""
        names = ("image", "crop", "row", "column")
        known = [[None if value == UNKNOWN else value for value in place] for place in self.places.tolist()]
        return tuple(
            KeptToken(position=position, **dict(zip(names, place, strict=True)))
            for position, place in zip(self.positions, known, strict=True)
        )
