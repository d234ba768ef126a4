"""Which KV entries stay: those with the longest values."""

from __future__ import annotations

import attrs
from torch import Tensor
from torch.linalg import vector_norm

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl


@attrs.frozen(eq=False)
class LongValues:
    """``budget`` entries per KV head: four sinks, the last eight tokens, and those with the longest values."""

    budget: int = attrs.field(default=64, converter=int, validator=attrs.validators.ge(16))

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Scores that look at values alone."""
        return ScorePlan(geometry=geometry, score=_length, budget=self.budget, sinks=4, recent=8)


def _length(cache: CacheEvidence) -> Tensor:
    """Scores (b, kv_heads, n); higher stays."""
    lengths: Tensor = vector_norm(cache.values.float(), dim=-1)
    return lengths
