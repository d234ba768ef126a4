"""Entries whose keys are short stay (L2 norm; Devoto et al. 2024, arXiv 2406.11430)."""

from __future__ import annotations

import attrs
import torch
from attrs import converters, validators
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.numbers import number_or_none, whole, whole_or_none
from headwise.options import common, half_without_budget, one_limit


@attrs.frozen(eq=False)
class KNorm:
    """Keeps the entries whose keys have the smallest L2 norm, which draw the most attention in trained models.

    ``budget`` entries per KV head, or the share ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last
    tokens always stay; in decoding, every ``every``-th token evicts; ``rerotate`` closes the gaps in the keys. Looks
    at keys alone, so it costs least. The published code leaves the first two layers whole, here all are alike.
    """

    budget: int | None = attrs.field(default=None, converter=whole_or_none)
    ratio: float | None = attrs.field(default=half_without_budget, converter=number_or_none, validator=one_limit)
    sinks: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    recent: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    every: int = attrs.field(default=16, converter=whole, validator=validators.ge(0))
    rerotate: bool = attrs.field(default=False, converter=converters.to_bool)

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Needs nothing but the keys."""
        return ScorePlan(geometry=geometry, score=_shortness, **common(self))


def _shortness(evidence: CacheEvidence) -> Tensor:
    """Minus the norm of each key; rotary embeddings do not change it."""
    lengths: Tensor = torch.linalg.vector_norm(evidence.keys.float(), dim=-1)
    return -lengths
