"""Entries that queries yet to come will probably attend to stay (Devoto et al. 2025, arXiv 2510.00636; kvpress)."""

from __future__ import annotations

import attrs
import torch
from attrs import validators
from torch import Tensor

from headwise import CacheEvidence, Geometry, ScorePlan, hookimpl
from headwise.numbers import number, whole
from headwise.options import ScoreOptions, in_place


@attrs.frozen(eq=False, field_transformer=in_place)
class ExpectedAttention(ScoreOptions):
    """Keeps the entries with the highest expected attention of the next ``future`` queries, times value norm.

    The last ``queries``, rotary embeddings undone, give the mean and covariance of a Gaussian, which is then rotated
    by the average over the next ``future`` positions. Under it the expected exp(q.k / sqrt(d)) is
    exp(mean.k / sqrt(d) + k.cov.k / 2d); as a share of its sum over entries, averaged over the query heads that share
    a KV head, plus ``epsilon``, times the norm of the value: the score.

    ``budget`` entries per KV head, or the share ``ratio`` of the tokens read; ``sinks`` first tokens always stay, and
    neither they nor their queries take part in the statistics; ``recent`` last tokens always stay; in decoding, every
    ``every``-th token evicts; ``rerotate`` closes the gaps in the keys. kvpress takes its statistics from all queries
    of the prompt: the same where ``queries`` is as long as the prompt.
    """

    sinks: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))
    queries: int = attrs.field(default=128, converter=whole, validator=validators.ge(1))
    future: int = attrs.field(default=512, converter=whole, validator=validators.ge(1))
    epsilon: float = attrs.field(default=0.0, converter=number, validator=validators.ge(0))

    @hookimpl
    def kv_eviction(self, geometry: Geometry) -> ScorePlan:
        """Remembers the last queries."""
        return self.plan(geometry, self._expected, queries=self.queries, rotates=True)

    def _expected(self, evidence: CacheEvidence) -> Tensor:
        """(expected attention + epsilon) * value norm: (b, kv_heads, n)."""
        # 1 the Gaussian of queries, (b, kv_heads, group, d) and (b, kv_heads, group, d, d), and its rotation
        kv_heads = evidence.positions.shape[1]
        mean, covariance = (of.reshape(len(of), kv_heads, -1, *of.shape[2:]) for of in self._gaussian(evidence))
        turn = self._turn(evidence)
        mean = torch.einsum("bij,bghj->bghi", turn, mean)
        covariance = torch.einsum("bij,bghjk,blk->bghil", turn, covariance, turn)
        # 2 what it expects of each key
        keys = evidence.keys.float()
        linear = torch.einsum("bghi,bgni->bghn", mean, keys) / keys.shape[-1] ** 0.5
        square = torch.einsum("bgni,bghij,bgnj->bghn", keys, covariance, keys) / (2 * keys.shape[-1])
        # 3 as a share of what all keys but sinks get
        apart = (evidence.positions < self.sinks).unsqueeze(2)  # empty ones are at -1
        share: Tensor = (linear + square).masked_fill(apart, torch.finfo(torch.float32).min).softmax(dim=-1)
        expected = share.masked_fill(apart, 0.0).mean(dim=2)
        lengths: Tensor = torch.linalg.vector_norm(evidence.values.float(), dim=-1)
        return (expected + self.epsilon) * lengths

    def _gaussian(self, evidence: CacheEvidence) -> tuple[Tensor, Tensor]:
        """Mean (b, heads, d) and covariance (b, heads, d, d) of the last queries, those of the sinks left out."""
        queries = evidence.queries(self.queries).float()
        asked = queries.shape[2]
        count = (evidence.seen - self.sinks).clamp(1, asked)[:, None]
        used = (torch.arange(asked, device=queries.device) >= asked - count)[:, None, :, None]
        mean = (queries * used).sum(dim=2) / count.unsqueeze(-1)
        centred = (queries - mean.unsqueeze(2)) * used
        covariance = torch.einsum("bhqi,bhqj->bhij", centred, centred) / count[..., None, None]
        return mean, covariance

    def _turn(self, evidence: CacheEvidence) -> Tensor:
        """The rotation that the positions to come have on average, a matrix for each row: (b, d, d)."""
        unit = torch.eye(evidence.keys.shape[-1], device=evidence.keys.device, dtype=torch.float32)
        ahead = torch.arange(self.future, device=unit.device)[:, None]
        turned = evidence.rotate(unit.expand(self.future, -1, -1), ahead).mean(dim=0)
        rows = evidence.rotate(turned.expand(len(evidence.seen), -1, -1), evidence.seen[:, None])
        return rows.transpose(-1, -2)  # rows are rotated unit vectors, that is columns of the rotation
