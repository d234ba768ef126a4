"""The one text token that looks at the image most asks.

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
from headwise.plan import UNUSED


@attrs.frozen(eq=False)
class MaxAttentionToken:
    """The text token after the image with the most attention to it, summed over heads and visual tokens.

    Of equal ones the latest asks. A prompt without text after the image is asked by its last token.
    """

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """One query per text token, all but one of which get no weight."""
        rows = range(len(layout))
        queries = Queries.of([text if (text := layout.text(row)).size else layout.valid(row)[-1:] for row in rows])
        return Queries(queries.positions, partial(_strongest, queries.positions == UNUSED))


def _strongest(unused: npt.NDArray[np.bool_], attention: Tensor) -> Tensor:
    """Attention (b, h, q, v) -> weights (b, q), 1 for one query of each row."""
    strength = attention.float().sum(dim=(1, 3))
    strength = strength.masked_fill(torch.from_numpy(unused).to(strength.device), -torch.inf)
    latest = strength.shape[1] - 1 - strength.flip(-1).argmax(dim=-1)  # argmax gives the first of equal ones
    return torch.nn.functional.one_hot(latest, strength.shape[1]).to(strength)
