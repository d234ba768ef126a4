"""Entries stay by lot: the control that every other strategy has to beat."""

from __future__ import annotations

import attrs
import torch
from attrs import converters, validators
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.numbers import number_or_none, whole, whole_or_none
from headwise.numbers import seed as as_seed
from headwise.options import common, half_without_budget, one_limit

_BITS = 0xFFFFFFFF
_FACTOR = 0x045D9F3B  # odd and below 2^31, so that products of 32-bit numbers fit into int64


@attrs.frozen(eq=False)
class Random:
    """Keeps entries drawn by ``seed``, layer, KV head and position; a token draws the same number at every eviction.

    So what is kept is a fair sample of all tokens read, whenever evictions happen, and the same for every text.
    ``budget`` entries per KV head, or the share ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last
    tokens always stay; in decoding, every ``every``-th token evicts; ``rerotate`` closes the gaps in the keys.
    """

    budget: int | None = attrs.field(default=None, converter=whole_or_none)
    ratio: float | None = attrs.field(default=half_without_budget, converter=number_or_none, validator=one_limit)
    sinks: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    recent: int = attrs.field(default=0, converter=whole, validator=validators.ge(0))
    every: int = attrs.field(default=16, converter=whole, validator=validators.ge(0))
    rerotate: bool = attrs.field(default=False, converter=converters.to_bool)
    seed: int = attrs.field(default=0, converter=as_seed, validator=validators.ge(0))

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Looks at nothing."""
        return ScorePlan(geometry=geometry, score=self._drawn, **common(self))

    def _drawn(self, evidence: CacheEvidence) -> Tensor:
        """A number in 0..1 for each entry, from a hash: no generator has a state for every token of every head."""
        heads = torch.arange(evidence.positions.shape[1], device=evidence.positions.device)[:, None]
        drawn = _mixed(torch.full_like(heads, self.seed & _BITS))
        for part in (self.seed >> 32 & _BITS, evidence.layer, heads, evidence.positions):
            drawn = _mixed(drawn ^ part)
        return drawn.float() / 2**32


def _mixed(x: Tensor) -> Tensor:
    """A 32-bit hash in int64, one to one: xor-shifts and multiplications."""
    x = (x + 0x9E3779B9) & _BITS  # without it 0 would stay 0
    for _ in range(2):
        x = ((x ^ (x >> 16)) * _FACTOR) & _BITS
    return x ^ (x >> 16)
