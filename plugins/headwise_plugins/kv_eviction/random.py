"""Entries stay by lot: the control that every other strategy has to beat."""

from __future__ import annotations

import attrs
import torch
from attrs import validators
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.numbers import seed as as_seed
from headwise.options import ScoreOptions

_BITS = 0xFFFFFFFF
_FACTOR = 0x045D9F3B  # odd and below 2^31, so that products of 32-bit numbers fit into int64


@attrs.frozen(eq=False)
class Random(ScoreOptions):
    """Keeps entries drawn by ``seed``, layer, KV head and position; a token draws the same number at every eviction.

    So what is kept is a fair sample of all tokens read, whenever evictions happen, and the same for every text.
    ``budget`` entries per KV head, or the share ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last
    tokens always stay; in decoding, every ``every``-th token evicts; ``rerotate`` closes the gaps in the keys.
    """

    seed: int = attrs.field(default=0, converter=as_seed, validator=validators.ge(0))

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Looks at nothing."""
        return self.plan(geometry, self._drawn)

    def _drawn(self, evidence: CacheEvidence) -> Tensor:
        """A number in 0..1 for each entry, from a hash: no generator has a state for every token of every head."""
        heads = torch.arange(evidence.positions.shape[1], device=evidence.positions.device)[:, None]
        drawn = _mixed(torch.full_like(heads, self.seed & _BITS))
        for part in (self.seed >> 32 & _BITS, evidence.layer, heads, evidence.positions):
            drawn = _mixed(drawn ^ part)
        return drawn.float() / 2**32


def _mixed(x: Tensor) -> Tensor:
    """A 32-bit hash in int64, one to one: xor-shifts and multiplications."""
    x = (x + 0x9E3779B9) & _BITS  # otherwise 0 would stay 0
    for _ in range(2):
        x = ((x ^ (x >> 16)) * _FACTOR) & _BITS
    return x ^ (x >> 16)
