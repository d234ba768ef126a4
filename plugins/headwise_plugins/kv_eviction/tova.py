"""Entries that the last token attends to stay, the same in all heads (TOVA; Oren et al. 2024, arXiv 2401.06104)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.eviction import grouped
from headwise.options import ScoreOptions


@attrs.frozen(eq=False)
class Tova(ScoreOptions):
    """Keeps the tokens with the highest attention of the last query, averaged over all heads of the layer.

    Every KV head gets the same scores, so all keep the same tokens. ``budget`` entries per KV head, or the share
    ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last tokens always stay; in decoding, every
    ``every``-th token evicts (the paper evicts at each: ``every=1``); ``rerotate`` closes the gaps in the keys. As in
    the paper, the last token itself may go; kvpress always keeps it (``recent=1``).
    """

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Remembers one query."""
        return self.plan(geometry, _attended, queries=1)


def _attended(evidence: CacheEvidence) -> Tensor:
    """Attention of the last query to each token, averaged over heads; a head that lacks the token gives it 0."""
    positions = evidence.positions
    attention = grouped(evidence.attention(1)[:, :, -1], positions.shape[1])
    # One slot holds other tokens in other heads, so attention is added by position; empty slots go to the end.
    tokens = int(positions.max()) + 1
    place = torch.where(positions < 0, tokens, positions)
    by_token = attention.new_zeros(*positions.shape[:2], tokens + 1).scatter(-1, place, attention)
    return by_token.mean(dim=1, keepdim=True).expand_as(by_token).gather(-1, place)
