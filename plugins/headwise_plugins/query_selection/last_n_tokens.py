"""The last few tokens of the prompt ask, with equal weight.

Among the choices of query tokens that LLaVA-FinePruner-Head compares.
"""

from __future__ import annotations

from functools import partial

import attrs
import numpy as np

from headwise import Layout, Queries, hookimpl
from headwise.numbers import whole


@attrs.frozen(eq=False)
class LastNTokens:
    """The mean over the last ``n`` tokens of the text after the image, or over all of it where it is shorter.

    A prompt without such text is asked by its last token, so ``n=1`` is always last_token.
    """

    n: int = attrs.field(default=3, converter=whole, validator=attrs.validators.ge(1))

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """Up to ``n`` queries per row."""
        rows = [np.union1d(layout.text(row), layout.valid(row)[-1:]) for row in range(len(layout))]
        return Queries.of([row[-self.n :] for row in rows])


last_5_tokens = partial(LastNTokens, n=5)
"""The mean over the last five tokens of the text after the image: last_n_tokens with n=5."""
