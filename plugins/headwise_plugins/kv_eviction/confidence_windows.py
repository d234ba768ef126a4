"""A window by class for heads whose class is sure, and one window for all the others.

Group G of the head-aware cache study of Pythia-2.8b.
"""

from __future__ import annotations

import attrs
import numpy as np
from attrs import validators

from headwise import Geometry, HeadProfile, WindowPlan, hookimpl
from headwise.eviction import POSITIONS
from headwise.heads import required
from headwise.numbers import number, whole, whole_or_none

_WHO = "kv_eviction strategy 'confidence_windows'"


@attrs.frozen(eq=False)
class ConfidenceWindows:
    """Heads with a confidence of at least ``threshold`` get the window of their class, all others ``base``.

    Group G of the head-aware cache study, which has ``base`` 64 and 128 and thresholds from .3 to .8. Without ``idle``,
    idle heads are treated as positional; ``sinks``, ``positions`` and KV heads shared by several heads as in
    ``head_windows``.

    Whether a threshold selects anything depends on the classification. That of the study (``entropy``) gives every
    mixed head the confidence .5, so no threshold above .5 selects one, and from .6 on its gathering heads (at most
    .59) drop out as well: what is left is ``streaming`` with a few positional heads narrowed. The confidence of
    ``locality`` is a probability and means the same for every class.
    """

    threshold: float = attrs.field(default=0.6, converter=number, validator=[validators.ge(0), validators.le(1)])
    base: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    positional: int = attrs.field(default=16, converter=whole, validator=validators.ge(1))
    mixed: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    gathering: int = attrs.field(default=256, converter=whole, validator=validators.ge(1))
    idle: int | None = attrs.field(
        default=None, converter=whole_or_none, validator=validators.optional(validators.ge(1))
    )
    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    positions: str = attrs.field(default="relative", validator=validators.in_(POSITIONS))

    @hookimpl
    def kv_eviction(self, geometry: Geometry, profile: HeadProfile | None) -> WindowPlan:
        """The window of each KV head's sure classes, and ``base``."""
        labels = required(profile, _WHO).labels
        sure = labels.confidence >= self.threshold
        windows = np.where(sure, labels.per_head(self._by_class(), _WHO), self.base)
        return WindowPlan.by_head(geometry, windows, self.sinks, self.positions)

    def _by_class(self) -> dict[str, int | None]:
        return {
            "positional": self.positional,
            "mixed": self.mixed,
            "gathering": self.gathering,
            "idle": self.idle or self.positional,
        }
