"""Entries that the last tokens attend to stay, with their neighbours (SnapKV; Li et al. 2024, arXiv 2404.14469)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.eviction import grouped
from headwise.options import LastQueriesOptions


@attrs.frozen(eq=False)
class SnapKV(LastQueriesOptions):
    """Keeps the entries with the highest mean attention of the last ``queries`` tokens, pooled over neighbours.

    Attention is averaged over those queries and the query heads that share a KV head, then over ``kernel``
    neighbouring entries (``pool=avg``; ``max``: their highest). The ``recent`` last tokens always stay and take no
    part in pooling; that is all the ``queries``, or half of a ``budget`` where that is less. An entry is judged by the
    queries that came after it. ``budget`` entries per KV head, or the share ``ratio`` of the tokens read; ``sinks``
    first tokens always stay; in decoding, every ``every``-th token evicts; ``rerotate`` closes the gaps in the keys.

    Windows are 32 or 64 and kernels 5 or 7 in the paper and its code, which evicts after the prompt only.
    """

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Remembers the last queries."""
        return self.plan(geometry, self._pooled, queries=self.queries)

    def _pooled(self, evidence: CacheEvidence) -> Tensor:
        """Mean attention of the last queries, pooled over neighbours: (b, kv_heads, n)."""
        positions, seen = evidence.positions, evidence.seen[:, None, None]
        scores = _observed(evidence.attention(self.queries), positions, seen)
        scores = scores.masked_fill(positions >= seen - self.recent, 0.0)
        pool = functional.avg_pool1d if self.pool == "avg" else functional.max_pool1d
        return pool(scores, self.kernel, stride=1, padding=self.kernel // 2)


def _observed(attention: Tensor, positions: Tensor, seen: Tensor) -> Tensor:
    """Attention (b, heads, q, n) averaged over query heads of a group, and over the queries that see each entry."""
    asked = (attention.sum(dim=(1, 3)) > 0).sum(dim=-1)[:, None, None]  # a short row has fewer queries
    judges = torch.minimum(asked, seen - positions).clamp_min(1)
    return grouped(attention.sum(dim=2), positions.shape[1]) / judges
