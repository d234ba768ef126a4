"""Budgets that shrink from layer to layer, with SnapKV's scores (PyramidKV; Cai et al. 2024, arXiv 2406.02069)."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from attrs import converters, validators

from headwise import Geometry, ScorePlan, hookimpl
from headwise.numbers import number, number_or_none, whole, whole_or_none
from headwise.options import half_without_budget, one_limit, queries_or_half
from headwise.registry import Registry, load
from headwise.text import chosen_options


@attrs.frozen(eq=False)
class PyramidKV:
    """Keeps what ``snapkv`` would, with budgets that fall from layer to layer in equal steps.

    Beyond the protected tokens the last layer gets 1/``beta`` of the mean budget and the first gets 2 - 1/``beta`` of
    it, so the mean over layers is the ``budget`` (entries per KV head) or the share ``ratio`` of the tokens read. What
    a low layer has no tokens for goes to the others in proportion; the paper's code flattens its steps then, or gives
    every layer the same. The other options are those of ``snapkv``, whose scores these are.
    """

    budget: int | None = attrs.field(default=None, converter=whole_or_none)
    ratio: float | None = attrs.field(default=half_without_budget, converter=number_or_none, validator=one_limit)
    queries: int = attrs.field(default=64, converter=whole, validator=validators.ge(1))
    kernel: int = attrs.field(default=5, converter=whole, validator=validators.ge(1))
    pool: str = attrs.field(default="avg")
    sinks: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    recent: int = attrs.field(default=queries_or_half, converter=whole, validator=validators.ge(0))
    every: int = attrs.field(default=16, converter=whole, validator=validators.ge(0))
    rerotate: bool = attrs.field(default=False, converter=converters.to_bool)
    beta: float = attrs.field(default=20.0, converter=number, validator=validators.ge(1))

    def __attrs_post_init__(self) -> None:
        self._scores()  # what snapkv refuses is refused here and now

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """The plan of ``snapkv``, its budget divided over layers."""
        plan: ScorePlan = self._scores().kv_eviction(geometry=geometry)
        return attrs.evolve(plan, shares=np.linspace(2 - 1 / self.beta, 1 / self.beta, geometry.layers))

    def _scores(self) -> Any:
        """The strategy that scores, by name, with the options that are its own."""
        options = {name: value for name, value in chosen_options(self).items() if name != "beta"}
        return load(Registry.installed("kv_eviction").find("snapkv", "headwise"))(**options)
