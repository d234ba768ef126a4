"""The last tokens and nothing else: window attention, the control that shows what sinks are worth."""

from __future__ import annotations

import attrs
from attrs import validators

from headwise import Geometry, WindowPlan, hookimpl
from headwise.numbers import whole


@attrs.frozen(eq=False)
class Window:
    """A query sees the last ``window`` tokens, itself included, and no sinks.

    Group A of the head-aware cache study, and "window attention" in Xiao et al. 2023 (StreamingLLM, arXiv
    2309.17453), who found that it breaks down as soon as the first tokens are gone.
    """

    window: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> WindowPlan:
        """The same window for every head."""
        return WindowPlan.uniform(geometry, sinks=0, window=self.window)
