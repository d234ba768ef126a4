"""The text tokens that are most like the image ask (SparseVLM's raters, ICML 2025, arXiv 2410.04417)."""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt
from attrs import validators

from headwise import Layout, Queries, hookimpl
from headwise.plan import Embeddings
from headwise.similarity import exact, rounding


@attrs.frozen(eq=False)
class Raters:
    """The mean over those tokens of the text after the image that visual tokens resemble more than on average.

    Each visual token spreads itself over the text tokens, by the softmax of the products of their embeddings, as the
    language model is given them; raters are the text tokens with more than the mean share. If all have the same, all
    are raters. A prompt without text after the image is asked by its last token. ``scale``: products as they are
    (``none``, as published, which in wide models gives nearly all to the largest), or divided by the ``sqrt`` of the
    width.
    """

    scale: str = attrs.field(default="none", validator=validators.in_(("none", "sqrt")))

    @hookimpl
    def query_selection(self, layout: Layout, embeddings: Embeddings) -> Queries:
        """As many queries per row as it has raters."""
        return Queries.of([self._raters(layout, embeddings, row) for row in range(len(layout))])

    def _raters(self, layout: Layout, embeddings: Embeddings, row: int) -> npt.NDArray[np.int64]:
        text = layout.text(row)
        if not text.size:
            return layout.valid(row)[-1:]
        visual, words = exact(embeddings.visual(row)), exact(embeddings.at(row, text))
        products = visual @ words.T / (visual.shape[-1] ** 0.5 if self.scale == "sqrt" else 1.0)
        shares = products.softmax(dim=-1).mean(dim=0)
        chosen = (shares > shares.mean() * (1 + rounding(shares))).cpu().numpy()
        return text[chosen] if chosen.any() else text
