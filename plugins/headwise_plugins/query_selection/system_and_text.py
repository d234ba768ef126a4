"""Everything that is no image asks, with equal weight.

Among the choices of query tokens that LLaVA-FinePruner-Head compares.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from headwise import Layout, Queries, hookimpl
from headwise.layout import SYSTEM, TEXT


@attrs.frozen(eq=False)
class SystemAndText:
    """The mean over the system prompt and the text after the image.

    Under a causal mask the system prompt cannot see the image that follows it, so its queries count as zeros: the
    ranking of heads and tokens is that of text_tokens_only. A prompt without text after the image is asked by its
    last token.
    """

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """One query per token of system prompt and text."""
        return Queries.of([self._asked(layout, row) for row in range(len(layout))])

    def _asked(self, layout: Layout, row: int) -> npt.NDArray[np.int64]:
        if not layout.text(row).size:
            return layout.valid(row)[-1:]
        return layout.positions(row, SYSTEM, TEXT)
