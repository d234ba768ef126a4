"""Classes by the entropy of attention: kept to reproduce the head-aware cache study of Pythia-2.8b, not to be used."""

from __future__ import annotations

import attrs
import numpy as np
from attrs import validators

from headwise import HeadLabels, HeadStatistics, hookimpl
from headwise.numbers import number

CLASSES = ("positional", "mixed", "gathering")


@attrs.frozen(eq=False)
class Entropy:
    """Positional below an entropy of attention, gathering above another, mixed between: a known weak method.

    Rebuilt from the report of a 2024 study of Pythia-2.8b, which gives no code and no thresholds: mean entropy of the
    rows as a share of the largest possible, at most ``low`` for positional, at least ``high`` for gathering. Confidence
    is how far past its threshold a head is, as a share of what is possible, and the constant 0.5 for mixed heads.

    What is wrong with it: the three confidences are on different scales and none is a probability (there is no
    ``probabilities``); every mixed head has the same one, so no confidence threshold above 0.5 ever selects one; and
    low entropy means a sink, a local head or a retrieval head alike. ``locality`` has none of these faults.
    """

    low: float = attrs.field(default=0.4, converter=number, validator=[validators.ge(0), validators.le(1)])
    high: float = attrs.field(default=0.7, converter=number, validator=[validators.ge(0), validators.le(1)])

    @high.validator
    def _in_order(self, _: object, high: float) -> None:
        if high <= self.low:
            raise ValueError(f"high={high:g} is not above low={self.low:g}")

    @hookimpl
    def head_classification(self, statistics: HeadStatistics) -> HeadLabels:
        """Three classes, and confidences as the study has them."""
        entropy = statistics.attention(4).entropy.mean(axis=0)  # over all keys, whatever the number of sinks
        positional, gathering = entropy <= self.low, entropy >= self.high
        below = (self.low - entropy) / max(self.low, np.finfo(float).tiny)
        above = (entropy - self.high) / max(1 - self.high, np.finfo(float).tiny)
        return HeadLabels(
            names=CLASSES,
            labels=np.select([positional, gathering], [0, 2], default=1).astype(np.int64),
            confidence=np.clip(np.select([positional, gathering], [below, above], default=0.5), 0, 1),
            statistics={"entropy": entropy},
        )
