"""Entries that have received most attention stay, beside the latest (H2O; Zhang et al. 2023, arXiv 2306.14048)."""

from __future__ import annotations

import attrs
from attrs import validators
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.eviction import grouped
from headwise.numbers import number
from headwise.options import ScoreOptions


@attrs.frozen(eq=False)
class H2O(ScoreOptions):
    """Keeps heavy hitters: half of the entries by attention received since they arrived, half because they are recent.

    Attention is summed over all queries so far and averaged over the query heads that share a KV head. ``latest`` is
    the share of the kept entries that goes to the most recent tokens (0.5 in the paper). ``budget`` entries per KV
    head, or the share ``ratio`` of the tokens read; ``sinks`` first and ``recent`` last tokens always stay, whatever
    ``latest`` says; in decoding, every ``every``-th token evicts (the paper evicts at each: ``every=1``); ``rerotate``
    closes the gaps in the keys. Sums favour early tokens, which more queries have seen; so does the paper.
    """

    latest: float = attrs.field(default=0.5, converter=number, validator=[validators.ge(0), validators.le(1)])

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Sums up attention."""
        return self.plan(geometry, self._received, accumulates=True)

    def _received(self, evidence: CacheEvidence) -> Tensor:
        """Attention received; infinite for the latest tokens."""
        positions, seen = evidence.positions, evidence.seen
        accumulated = grouped(evidence.accumulated_attention(), positions.shape[1])
        latest = seen.new_tensor([self._latest(tokens) for tokens in seen.tolist()])
        return accumulated.masked_fill(positions >= (seen - latest)[:, None, None], float("inf"))

    def _latest(self, seen: int) -> int:
        """How many of the last tokens stay, of those that the sinks leave."""
        kept = self.budget if self.budget is not None else int((self.ratio or 1) * seen + 1e-9)
        return max(0, min(int(self.latest * kept + 1e-9), kept - self.sinks))
