"""Budgets that shrink from layer to layer, with SnapKV's scores (PyramidKV; Cai et al. 2024, arXiv 2406.02069)."""

from __future__ import annotations

import attrs
import numpy as np
from attrs import validators

from headwise import Geometry, ScorePlan, hookimpl
from headwise.composition import Inner
from headwise.numbers import number
from headwise.options import LastQueriesOptions
from headwise.recipe import OWN
from headwise.text import chosen_options, written


@attrs.frozen(eq=False)
class PyramidKV(LastQueriesOptions):
    """Keeps what ``snapkv`` would, with budgets that fall from layer to layer in equal steps.

    Beyond the protected tokens the last layer gets 1/``beta`` of the mean budget and the first gets 2 - 1/``beta`` of
    it, so the mean over layers is the ``budget`` (entries per KV head) or the share ``ratio`` of the tokens read. What
    a low layer has no tokens for goes to the others in proportion; the paper's code flattens its steps then, or gives
    every layer the same. The other options are those of ``snapkv``, whose scores these are.
    """

    beta: float = attrs.field(default=20.0, converter=number, validator=validators.ge(1))
    _inner: Inner = attrs.field(init=False, factory=Inner)

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """The plan of ``snapkv``, its budget divided over layers."""
        options = {name: value for name, value in chosen_options(self).items() if name != "beta"}
        plan = self._inner.run(kv_eviction=written("snapkv", options), prefer=OWN).eviction(geometry)
        assert isinstance(plan, ScorePlan)
        return attrs.evolve(plan, shares=np.linspace(2 - 1 / self.beta, 1 / self.beta, geometry.layers))
