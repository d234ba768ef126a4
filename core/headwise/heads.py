"""What is known about heads across layers: statistics in, labels and profiles out."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import numpy as np


@attrs.frozen(eq=False)
class HeadStatistics:
    """Attention statistics per head: name -> float array (layers, heads, ...)."""

    values: Mapping[str, np.ndarray]


@attrs.frozen(eq=False)
class HeadLabels:
    """A class per head and how probable it is.

    ``labels`` indexes ``names``, int (layers, heads); ``probability`` (layers, heads) is in [1 / len(names), 1].
    """

    names: tuple[str, ...]
    labels: np.ndarray
    probability: np.ndarray


@attrs.frozen(eq=False)
class HeadProfile:
    """Head labels of one model, as a KV-eviction strategy gets them."""

    model: str
    labels: HeadLabels
