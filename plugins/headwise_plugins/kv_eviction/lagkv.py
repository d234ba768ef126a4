"""Entries that stand out from the stretch of text after them stay (LagKV; Liang et al. 2025, arXiv 2504.04704)."""

from __future__ import annotations

import attrs
import torch
from attrs import validators
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.numbers import whole
from headwise.options import ScoreOptions, in_place


@attrs.frozen(eq=False, field_transformer=in_place)
class LagKV(ScoreOptions):
    """Keeps, of every ``lag`` entries, those whose keys and values vary most within the range of the next ``lag``.

    Behind the ``sinks``, entries form partitions of ``lag``. Each number of a key is scaled to the minimum and maximum
    that the next partition has there; the deviation over a key's numbers, as a softmax over its partition, is its
    score, and the mean of key's and value's score ranks entries within the partition. So every partition keeps the
    same share. The last complete partition and what is after it come first, latest best; a cache shorter than two
    partitions is all of that kind. No attention is needed.

    ``budget`` entries per KV head, or the share ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last
    tokens always stay; in decoding, every ``every``-th token evicts; ``rerotate`` closes the gaps in the keys. A
    ``budget`` of up to ``sinks`` + ``lag`` comes to keeping the last tokens. The paper compresses a partition once;
    here entries that stay form new partitions with their neighbours.
    """

    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    lag: int = attrs.field(default=128, converter=whole, validator=validators.ge(1))

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Needs keys and values alone."""
        return self.plan(geometry, self._ranked)

    def _ranked(self, evidence: CacheEvidence) -> Tensor:
        """Rank within the partition, below 1; from 1 on for the last entries: (b, kv_heads, n)."""
        positions = evidence.positions
        entries, device = positions.shape[-1], positions.device
        sinks = ((positions >= 0) & (positions < self.sinks)).sum(dim=-1, keepdim=True)
        slots = torch.arange(entries, device=device) - sinks  # counted behind the sinks
        whole_partitions = torch.arange(-(-entries // self.lag) * self.lag, device=device)
        places = (whole_partitions + sinks).clamp_max(entries - 1)
        deviation = self._deviation(evidence.keys, places) + self._deviation(evidence.values, places)
        ranks = deviation.sort(dim=-1, stable=True).indices.argsort(dim=-1).flatten(2) / self.lag
        complete = ((positions >= 0).sum(dim=-1, keepdim=True) - sinks) // self.lag
        late = slots >= (complete - 1) * self.lag
        scores = torch.where(late, 1.0 + slots, ranks.gather(-1, slots.clamp_min(0)))
        return scores.masked_fill(slots < 0, float("inf"))  # sinks

    def _deviation(self, states: Tensor, places: Tensor) -> Tensor:
        """Share of each entry of a partition in its deviation: (b, kv_heads, partitions, lag)."""
        x = states.float().gather(2, places.unsqueeze(-1).expand(-1, -1, -1, states.shape[-1]))
        x = x.reshape(*x.shape[:2], -1, self.lag, x.shape[-1])
        low, high = x.amin(dim=3, keepdim=True).roll(-1, 2), x.amax(dim=3, keepdim=True).roll(-1, 2)
        spread = high - low
        scaled = torch.where(spread > 0, (x - low) / spread, 0.0)  # entries that are all alike deviate by 0
        return scaled.std(dim=-1).softmax(dim=-1)
