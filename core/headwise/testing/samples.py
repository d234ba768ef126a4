"""Inputs of the laws: a sample is a few numbers, everything else follows from them, so that it can be made again."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from headwise.layout import IMAGE, PADDING, SYSTEM, TEXT, Layout

KINDS = ("diffuse", "peaked", "sparse")
"""How attention is spread over visual tokens: over all, over few, over few and none on the rest."""


@attrs.frozen
class Sample:
    """One input of a law: ``rows`` of a batch, ``heads``, ``visual`` tokens, the ``kind`` of attention, a seed."""

    seed: int
    rows: int = 2
    heads: int = 8
    visual: int = 16
    kind: str = "diffuse"

    @property
    def generator(self) -> torch.Generator:
        """A generator at the start of this sample's numbers."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def rng(self) -> np.random.Generator:
        """The same for NumPy."""
        return np.random.default_rng(self.seed)

    def attention(self, queries: int | None = None) -> Tensor:
        """Attention to the visual tokens, float32 (rows, heads, visual), or (rows, heads, queries, visual).

        Softmax over the visual tokens times a mass below 1: the rest of the attention is on the text.
        """
        middle = () if queries is None else (queries,)
        shape = (self.rows, self.heads, *middle, self.visual)
        logits = torch.randn(shape, generator=self.generator) * (1.0 if self.kind == "diffuse" else 4.0)
        if self.kind == "sparse":
            logits = logits.masked_fill(logits < logits.mean(dim=-1, keepdim=True), float("-inf"))
        mass = torch.rand((*shape[:-1], 1), generator=self.generator) * 0.9 + 0.05
        return logits.softmax(dim=-1) * mass

    def scores(self) -> Tensor:
        """Head scores, float32 (rows, heads), no two of a row the same; negative ones among them if peaked."""
        order = torch.rand((self.rows, self.heads), generator=self.generator).argsort(dim=-1)
        steps = torch.rand((self.rows, self.heads), generator=self.generator) + 0.1
        values = steps.cumsum(dim=-1).gather(-1, order)
        return values if self.kind != "peaked" else values**3 - 5.0

    def seeds(self) -> Tensor:
        """What depends on each row's image alone, int64 (rows,)."""
        return torch.randint(0, 2**31, (self.rows,), generator=self.generator)

    def order(self, length: int) -> Tensor:
        """A permutation of ``length`` things that does move something, where there is more than one."""
        order = torch.randperm(length, generator=self.generator)
        return order.roll(1) if torch.equal(order, torch.arange(length)) else order

    def prompts(self) -> list[list[int]]:
        """Kinds of the positions of each row, unpadded: system, an image or several with text between, text.

        Text may be missing after the last image; every row has at least one image and a first token.
        """
        rng = self.rng
        prompts = []
        for _ in range(self.rows):
            prompt = [SYSTEM] * int(rng.integers(1, 5))
            for image in range(int(rng.integers(1, 4))):
                between = [TEXT] * int(rng.integers(0, 3)) if image else []
                prompt += between + [IMAGE] * self.visual
            prompts.append(prompt + [TEXT] * int(rng.integers(0, 14)))
        return prompts

    def layout(self, *, left: bool | None = None) -> Layout:
        """The prompts as a batch, padded on the side that is asked for, else on the one that the seed says."""
        return padded(self.prompts(), left=bool(self.seed % 2) if left is None else left)


def padded(prompts: list[list[int]], *, left: bool) -> Layout:
    """Prompts of kinds, padded to the longest, with one more column so that every row has padding."""
    width = max(map(len, prompts)) + 1
    rows = [[PADDING] * (width - len(row)) + row if left else row + [PADDING] * (width - len(row)) for row in prompts]
    return Layout(np.array(rows, dtype=np.uint8))


def samples() -> st.SearchStrategy[Sample]:
    """Samples of every kind."""
    return st.builds(
        Sample,
        seed=st.integers(0, 2**20),
        rows=st.integers(2, 4),
        heads=st.integers(8, 16),
        visual=st.integers(9, 40),
        kind=st.sampled_from(KINDS),
    )
