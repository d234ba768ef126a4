"""The last few tokens of the prompt ask, later ones with more weight.

Among the choices of query tokens that LLaVA-FinePruner-Head compares.
"""

from __future__ import annotations

import attrs
import numpy as np

from headwise import Layout, Queries, hookimpl
from headwise.numbers import whole


@attrs.frozen(eq=False)
class WeightedRecent:
    """The weighted mean over the last ``window`` tokens of the text after the image, the latest weighing most.

    Weights rise evenly, the latest twice the earliest, and sum to 1. Text shorter than the window is used whole; a
    prompt without text after the image is asked by its last token.
    """

    window: int = attrs.field(default=5, converter=whole, validator=attrs.validators.ge(1))

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """Up to ``window`` queries per row."""
        rows = [np.union1d(layout.text(row), layout.valid(row)[-1:]) for row in range(len(layout))]
        recent = [row[-self.window :] for row in rows]
        ramps = [np.linspace(0.5, 1, row.size) for row in recent]
        return Queries.of(recent, [ramp / ramp.sum() for ramp in ramps])
