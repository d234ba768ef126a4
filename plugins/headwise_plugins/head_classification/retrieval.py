"""Heads that copy: on random tokens that repeat, they look at what followed the last time."""

from __future__ import annotations

import attrs
import numpy as np
from attrs import validators

from headwise import HeadLabels, HeadStatistics, hookimpl
from headwise.attention_math import phi
from headwise.numbers import number


@attrs.frozen(eq=False)
class Retrieval:
    """Retrieval heads: those whose attention on the token after the previous copy exceeds ``threshold``.

    Random tokens are repeated once, so that content alone says where to look. With the mean m of that attention and its
    standard error s over sequences, at least ``min_se``: P(retrieval) = Phi((m - ``threshold``) / s). Statistics:
    ``copying`` and ``copying_se``.

    The induction score of RazorAttention (Tang et al. 2024). Wu et al., "Retrieval Head Mechanistically Explains
    Long-Context Factuality" (2024), count copied tokens of a needle instead, with the same threshold of 0.1.
    """

    threshold: float = attrs.field(default=0.1, converter=number, validator=validators.ge(0))
    min_se: float = attrs.field(default=0.02, converter=number, validator=validators.gt(0))

    @hookimpl
    def head_classification(self, statistics: HeadStatistics) -> HeadLabels:
        """Two probabilities for every head."""
        mean, error = statistics.copying()
        copies = phi((mean - self.threshold) / np.maximum(error, self.min_se))
        return HeadLabels.most_probable(
            ("retrieval", "other"),
            np.stack([copies, 1 - copies], axis=-1),
            {"copying": mean, "copying_se": error},
        )
