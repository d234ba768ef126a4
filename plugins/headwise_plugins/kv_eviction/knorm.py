"""Entries whose keys are short stay (L2 norm; Devoto et al. 2024, arXiv 2406.11430)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.options import ScoreOptions


@attrs.frozen(eq=False)
class KNorm(ScoreOptions):
    """Keeps the entries whose keys have the smallest L2 norm, which draw the most attention in trained models.

    ``budget`` entries per KV head, or the share ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last
    tokens always stay; in decoding, every ``every``-th token evicts; ``rerotate`` closes the gaps in the keys. Looks
    at keys alone, so it costs least. The published code leaves the first two layers whole, here all are alike.
    """

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Needs nothing but the keys."""
        return self.plan(geometry, _shortness)


def _shortness(evidence: CacheEvidence) -> Tensor:
    """Minus the norm of each key; rotary embeddings do not change it."""
    lengths: Tensor = torch.linalg.vector_norm(evidence.keys.float(), dim=-1)
    return -lengths
