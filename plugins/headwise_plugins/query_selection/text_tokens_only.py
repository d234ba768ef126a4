"""All of the text after the image asks, with equal weight.

Among the choices of query tokens that LLaVA-FinePruner-Head compares.
"""

from __future__ import annotations

import attrs

from headwise import Layout, Queries, hookimpl


@attrs.frozen(eq=False)
class TextTokensOnly:
    """The mean over the text after the image, the tail of the chat template included.

    A prompt without such text is asked by its last token.
    """

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """One query per text token."""
        rows = range(len(layout))
        return Queries.of([text if (text := layout.text(row)).size else layout.valid(row)[-1:] for row in rows])
