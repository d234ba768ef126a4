"""Heads of a layer compete for one budget, by any scores (Ada-KV; Feng et al. 2024, arXiv 2407.11550)."""

from __future__ import annotations

import attrs
from attrs import validators

from headwise import Geometry, HeadProfile, ScorePlan, StrategyError, hookimpl
from headwise.composition import Inner, kv_eviction_named
from headwise.numbers import number, whole


@attrs.frozen(eq=False)
class AdaKV:
    """Keeps the best entries of a layer, whichever head they are in; heads then hold different numbers of entries.

    ``of`` is the strategy that scores entries, in brackets if it has several options, and brings budget and protected
    tokens: ``adakv:of=[snapkv:budget=64,kernel=7],floor=0.3``. Each head keeps at least the share ``floor`` of its own
    budget, its best entries. In a layer at most ``levels`` + 1 different counts arise, because attention is one
    dense product for each: fewer levels are faster and follow the scores less closely. A layer's total is that of
    ``of``.

    The published code (floor 0.2, budgets exact to an entry) holds entries in one flat buffer for a kernel of its own;
    kvpress masks evicted entries and keeps their memory. Scores must compare across heads: attention does, key norms
    hardly.
    """

    of: str = attrs.field(default="snapkv", converter=kv_eviction_named)
    floor: float = attrs.field(default=0.2, converter=number, validator=[validators.ge(0), validators.le(1)])
    levels: int = attrs.field(default=8, converter=whole, validator=validators.ge(2))
    _inner: Inner = attrs.field(init=False, factory=Inner)

    @hookimpl
    def kv_eviction(self, geometry: Geometry, profile: HeadProfile | None) -> ScorePlan:
        """The plan of ``of``, its budget pooled over the heads of each layer."""
        plan = self._inner.run(kv_eviction=self.of, profile=profile).eviction(geometry)
        if not isinstance(plan, ScorePlan):
            raise StrategyError(
                f"kv_eviction strategy 'adakv' needs scores to let heads compete, but {self.of!r} goes by position"
                " alone; give a strategy that scores entries, such as of=snapkv"
            )
        return attrs.evolve(plan, pooled=True, floor=self.floor, levels=self.levels)
