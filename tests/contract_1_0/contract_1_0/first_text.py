"""Which tokens are asked what they look at: the first one of the question."""

from __future__ import annotations

import attrs

from headwise import Layout, Queries, hookimpl


@attrs.frozen(eq=False)
class FirstText:
    """The first ``tokens`` tokens after the last image; the last token of a prompt that has no text there."""

    tokens: int = attrs.field(default=1, converter=int, validator=attrs.validators.ge(1))

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """Positions of each row of the batch, never padding."""
        found = []
        for row in range(len(layout)):
            text = layout.text(row)
            found.append(text[: self.tokens] if text.size else layout.valid(row)[-1:])
        return Queries.of(found)
