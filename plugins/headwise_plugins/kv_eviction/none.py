"""Nothing is evicted: the full cache."""

from __future__ import annotations

import attrs

from headwise import Geometry, WindowPlan, hookimpl
from headwise.eviction import everything


@attrs.frozen(eq=False)
class FullCache:
    """Every entry stays, in every layer and head; what all other strategies are compared with."""

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> WindowPlan:
        """Windows that no text outgrows."""
        return everything(geometry)
