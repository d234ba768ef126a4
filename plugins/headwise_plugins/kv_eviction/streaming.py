"""The first few tokens and the last ones (StreamingLLM; Xiao et al. 2023, arXiv 2309.17453)."""

from __future__ import annotations

import attrs
from attrs import validators

from headwise import Geometry, WindowPlan, hookimpl
from headwise.eviction import POSITIONS
from headwise.numbers import whole


@attrs.frozen(eq=False)
class Streaming:
    """A query sees the first ``sinks`` tokens and the last ``window``, itself included: StreamingLLM.

    So ``sinks=4,window=60`` is a cache of 64 entries (group B of the head-aware cache study). ``positions``:
    ``relative`` counts distances within the cache, as published, and ``original`` in the text; only distances to the
    sinks differ. The published code trims its cache after each token, so there a query sees one entry more: its
    ``recent_size=59`` is ``window=60`` here.
    """

    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    window: int = attrs.field(default=60, converter=whole, validator=validators.ge(1))
    positions: str = attrs.field(default="relative", validator=validators.in_(POSITIONS))

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> WindowPlan:
        """The same sinks and window for every head."""
        return WindowPlan.uniform(geometry, self.sinks, self.window, self.positions)
