"""Everything that is no image asks, each token weighing as much as it looks at the image.

Among the choices of query tokens that LLaVA-FinePruner-Head compares.
"""

from __future__ import annotations

from functools import partial

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from headwise import Layout, Queries, hookimpl
from headwise.layout import SYSTEM, TEXT
from headwise.plan import UNUSED

Mask = npt.NDArray[np.bool_]


@attrs.frozen(eq=False)
class AttentionWeighted:
    """The mean over system prompt and text, each token weighted by its attention to the image.

    ``form=strength``: weights proportional to attention summed over heads and visual tokens. ``form=softmax``: softmax
    of these sums, as FinePruner's code has it; they reach the number of heads, so that it is nearly one-hot or nearly
    flat. Where no token looks at the image, the text weighs evenly. A prompt without text after the image is asked by
    its last token.
    """

    form: str = attrs.field(default="strength", validator=attrs.validators.in_(("strength", "softmax")))

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """One query per token of system prompt and text; the weights follow from their attention."""
        positions = Queries.of([self._asked(layout, row) for row in range(len(layout))]).positions
        used = positions != UNUSED
        text = used & (np.take_along_axis(layout.kinds, positions, axis=1) == TEXT)
        even = np.where(text.any(axis=1, keepdims=True), text, used)
        return Queries(positions, partial(self._weights, used, even))

    def _asked(self, layout: Layout, row: int) -> npt.NDArray[np.int64]:
        return layout.positions(row, SYSTEM, TEXT) if layout.text(row).size else layout.valid(row)[-1:]

    def _weights(self, used: Mask, even: Mask, attention: Tensor) -> Tensor:
        """Attention (b, h, q, v) -> weights (b, q)."""
        strength = attention.float().sum(dim=(1, 3))
        fallback = torch.from_numpy(even).to(strength)
        unused = torch.from_numpy(~used).to(strength.device)
        weights = strength.masked_fill(unused, -torch.inf).softmax(dim=-1) if self.form == "softmax" else strength
        weights = torch.where(strength.sum(dim=-1, keepdim=True) > 0, weights, fallback)
        return weights / weights.sum(dim=-1, keepdim=True)
