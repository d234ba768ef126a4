"""What stands at each position of a prompt: padding, system, image or text. No torch."""

from __future__ import annotations

from functools import cached_property

import attrs
import numpy as np
import numpy.typing as npt

PADDING, SYSTEM, IMAGE, TEXT = range(4)
"""Kinds of positions. *System* is every token before the first image token, *text* every other token after it."""


@attrs.frozen(eq=False)
class Layout:
    """The kind of every position of a batch of prompts: ``kinds`` uint8 (b, positions).

    A prompt without an image is all system. Rows may be padded on either side and may hold several images.
    """

    kinds: npt.NDArray[np.uint8] = attrs.field()

    @kinds.validator
    def _two_axes(self, _: object, kinds: npt.NDArray[np.uint8]) -> None:
        if kinds.ndim != 2:
            raise ValueError(f"a layout has two axes (rows, positions), not {kinds.ndim}")

    @classmethod
    def of(cls, image: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_]) -> Layout:
        """From two boolean masks (b, positions): image tokens, and tokens that are not padding."""
        kinds = np.where(np.cumsum(image & valid, axis=1) > 0, TEXT, SYSTEM)
        kinds = np.where(image, IMAGE, kinds)
        return cls(np.where(valid, kinds, PADDING).astype(np.uint8))

    def __len__(self) -> int:
        return int(self.kinds.shape[0])

    @property
    def length(self) -> int:
        """Positions per row, padding included."""
        return int(self.kinds.shape[1])

    def positions(self, row: int, *kinds: int) -> npt.NDArray[np.int64]:
        """Ascending positions (n,) of one row that are of any of ``kinds``."""
        wanted = np.zeros(4, dtype=bool)  # ten times as fast as np.isin for so few kinds
        wanted[list(kinds)] = True
        return np.flatnonzero(wanted[self.kinds[row]])

    def image(self, row: int) -> npt.NDArray[np.int64]:
        """Ascending positions (n,) of the visual tokens of one row."""
        return self.positions(row, IMAGE)

    def text(self, row: int) -> npt.NDArray[np.int64]:
        """Ascending positions (n,) of the tokens after the first image token that are no visual tokens."""
        return self.positions(row, TEXT)

    def system(self, row: int) -> npt.NDArray[np.int64]:
        """Ascending positions (n,) of the tokens before the first image token."""
        return self.positions(row, SYSTEM)

    def valid(self, row: int) -> npt.NDArray[np.int64]:
        """Ascending positions (n,) of one row that are not padding."""
        return self.positions(row, SYSTEM, IMAGE, TEXT)

    @cached_property
    def image_counts(self) -> tuple[int, ...]:
        """Visual tokens of each row."""
        return tuple(int(count) for count in (self.kinds == IMAGE).sum(axis=1))

    def take(self, index: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_]) -> Layout:
        """The layout after a gather: positions ``index`` (b, kept), those not ``valid`` becoming padding."""
        kinds = np.take_along_axis(self.kinds, index, axis=1)
        return Layout(np.where(valid, kinds, PADDING).astype(np.uint8))

    def rows(self, chosen: list[int]) -> Layout:
        """The layout of some rows of the batch, in the order given."""
        return Layout(self.kinds[chosen])
