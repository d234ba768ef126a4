"""The last token of the prompt asks: what FastV and FinePruner do."""

from __future__ import annotations

import attrs

from headwise import Layout, Queries, hookimpl


@attrs.frozen(eq=False)
class LastToken:
    """The last token of each prompt that is not padding; in a LLaVA prompt, the ":" of "ASSISTANT:"."""

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """One query per row."""
        return Queries.of([layout.valid(row)[-1:] for row in range(len(layout))])
