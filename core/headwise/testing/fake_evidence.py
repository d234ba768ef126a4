"""Made-up evidence of a pruning stage, the same for the same images; it remembers what was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from headwise.plan import ATTENTION
from headwise.testing.samples import Sample

HEADS, WORDS, WIDTH = 8, 5, 16


@attrs.define(eq=False)
class FakeEvidence:
    """Evidence (:class:`headwise.plan.Evidence`) of as many rows as the sample has, or of those in ``rows``.

    ``kind``: tokens are ``random``, all ``alike``, or ``zero`` in everything they have.
    """

    sample: Sample
    layer: int
    visual: int
    keep: int
    rows: slice = slice(None)
    kind: str = "random"
    asked: set[str] = attrs.field(factory=set)
    notes: dict[str, Sequence[object]] = attrs.field(factory=dict)

    @property
    def batch(self) -> int:
        """Rows."""
        return len(range(*self.rows.indices(self.sample.rows)))

    @property
    def grid(self) -> tuple[int, int] | None:
        """A square, where the visual tokens make one."""
        side = math.isqrt(self.visual)
        return (side, side) if side * side == self.visual else None

    @property
    def clip(self) -> str | None:
        """A CLIP model is always to be had."""
        self.asked.add("clip")
        return "clip"

    def attention(self, kind: str = "attention") -> Tensor:
        """Token scores (rows, visual)."""
        return self.head_attention(kind).mean(dim=1)

    def head_attention(self, kind: str = "attention") -> Tensor:
        """Attention by head (rows, 8, visual); below 0 in places where it is ``unbiased``."""
        assert kind in ATTENTION, f"there is no attention {kind!r}; kinds are {', '.join(ATTENTION)}"
        self.asked.add(kind)
        values = self._made(10 + ATTENTION.index(kind), HEADS, self.visual, even=-1)
        return values / max(1, self.visual)

    def hidden(self) -> Tensor:
        """Hidden states (rows, visual, 16)."""
        return self._made(1, self.visual, WIDTH) - 0.5

    def text(self) -> tuple[Tensor, Tensor]:
        """Hidden states of five text tokens, the last of them padding."""
        return self._made(2, WORDS, WIDTH) - 0.5, self._real()

    def keys(self) -> Tensor:
        """Keys (rows, visual, 16)."""
        self.asked.add("keys")
        return self._made(3, self.visual, WIDTH) - 0.5

    def text_keys(self) -> tuple[Tensor, Tensor]:
        """Keys of five text tokens, the last of them padding."""
        self.asked.add("keys")
        return self._made(4, WORDS, WIDTH) - 0.5, self._real()

    def features(self) -> Tensor:
        """Vision features (rows, visual, 16)."""
        self.asked.add("vision")
        return self._made(5, self.visual, WIDTH) - 0.5

    def saliency(self) -> Tensor:
        """Attention in the vision tower (rows, visual)."""
        self.asked.add("vision")
        return self._made(6, self.visual) / max(1, self.visual)

    def vision_keys(self) -> Tensor:
        """Keys of the vision tower (rows, visual, 16)."""
        self.asked.add("vision")
        return self._made(7, self.visual, WIDTH) - 0.5

    def clip_similarity(self, folder: str | None = None) -> Tensor:
        """Cosines (rows, visual)."""
        self.asked.add("clip")
        return 2 * self._made(8, self.visual) - 1

    def note(self, key: str, values: Sequence[object]) -> None:
        """Remembered; there must be one value per row."""
        assert len(values) == self.batch, f"note {key!r} has {len(values)} values for {self.batch} rows"
        self.notes[key] = values

    def seeds(self) -> Tensor:
        """int64 (rows,)."""
        return self.sample.seeds()[self.rows]

    def _real(self) -> Tensor:
        return (torch.arange(WORDS) < WORDS - 1).expand(self.batch, -1)

    def _made(self, salt: int, *shape: int, even: int = -2) -> Tensor:
        """Numbers in 0..1, (rows, *shape); alike along the visual axis ``even`` of the result where that is asked."""
        generator = torch.Generator().manual_seed(self.sample.seed * 1009 + self.layer * 31 + salt)
        values = torch.rand((self.sample.rows, *shape), generator=generator)[self.rows]
        if self.kind == "zero":
            return torch.zeros_like(values) + (0.5 if len(shape) > 1 and shape[-1] == WIDTH else 0.0)
        if self.kind == "alike":
            axis = even if len(shape) > 1 else -1
            values = values.narrow(axis, 0, 1).expand_as(values).clone()
        return values
