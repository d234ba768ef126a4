"""Heads that the loss misses: what it costs to give one head alone a short window. The ground truth of the others.

Headwise's own: ablation of one head at a time, with a paired standard error.
"""

from __future__ import annotations

import attrs
import numpy as np
from attrs import validators

from headwise import HeadLabels, HeadStatistics, hookimpl
from headwise.attention_math import phi
from headwise.numbers import number, whole


@attrs.frozen(eq=False)
class Sensitivity:
    """Sensitive heads: the loss rises by more than ``threshold`` nats when this KV head alone is limited.

    It sees ``sinks`` first and ``window`` last tokens, every other head sees all. With the mean rise m per token and
    its paired standard error s: P(sensitive) = Phi((m - ``threshold``) / s). Query heads that share a KV head share its
    answer. Statistics: ``rise`` and ``rise_se``. One pass over the text per KV head of every layer: for small models.
    """

    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    window: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    threshold: float = attrs.field(default=0.001, converter=number, validator=validators.ge(0))

    @hookimpl
    def head_classification(self, statistics: HeadStatistics) -> HeadLabels:
        """Two probabilities for every head."""
        rise, error = statistics.sensitivity(self.sinks, self.window)
        sure = np.finfo(np.float32).eps * max(self.threshold, 1.0)  # a head without effect has an error of 0
        sensitive = phi((rise - self.threshold) / np.maximum(error, sure))
        return HeadLabels.most_probable(
            ("sensitive", "insensitive"),
            np.stack([sensitive, 1 - sensitive], axis=-1),
            {"rise": rise, "rise_se": error},
        )
