"""Tokens stay that concern the question and differ from each other (CDPruner, NeurIPS 2025, arXiv 2506.10967)."""

from __future__ import annotations

import attrs
import torch
from attrs import validators
from torch import Tensor
from torch.nn.functional import normalize

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.numbers import number_or_none
from headwise.plan import Evidence
from headwise.similarity import cosines

LEAST = 1e-6  # relevance of the least relevant token of an image, as published; a smaller spread is rounding
DUPLICATE = 1e-10  # share of a token that the chosen ones do not explain, below which it is rounding in float64


@attrs.frozen(eq=False)
class CdPruner:
    """Before the language model, for every image by itself: the likeliest set of a determinantal point process.

    With cosines S of the projected features and relevance r to the question, the kernel is K = diag(r) S diag(r).
    Greedily, each next token is the one that makes log det K of the kept ones largest. Once nothing new is left, as
    among duplicates, relevance alone decides.

    ``relevance``: ``clip`` is the paper's, by the cosine of patch and question in CLIP's common space; it needs the
    CLIP model that the vision tower comes from, named by the model's config or given as ``clip``, a folder.
    ``embeddings`` is the cosine of projected features with the words of the question as the language model reads them,
    averaged over words; it needs nothing else and runs with any tower. ``auto`` takes ``clip`` where there is one, else
    ``embeddings``. ``sign``: published is the ``negative`` cosine (patches are unlike the words for what they show);
    ``positive`` turns it round. Relevance is scaled to 0..1 over an image. ``theta``, 0 up to below 1, makes it exp(a
    r) with a = theta / (2 (1 - theta)), so that 0 is diversity alone; by default r is taken as it is, as in the
    published code.
    """

    relevance: str = attrs.field(default="auto", validator=validators.in_(("auto", "clip", "embeddings")))
    clip: str | None = attrs.field(default=None)
    sign: str = attrs.field(default="negative", validator=validators.in_(("negative", "positive")))
    theta: float | None = attrs.field(
        default=None,
        converter=number_or_none,
        validator=validators.optional([validators.ge(0), validators.lt(1)]),
    )

    @clip.validator
    def _read(self, _: attrs.Attribute[str | None], folder: str | None) -> None:
        if folder and self.relevance == "embeddings":
            raise ValueError("relevance=embeddings reads no CLIP model; leave out clip, or give relevance=clip")

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage in front of the first layer."""
        reads = () if self.relevance == "embeddings" else ("clip",)
        return PruningPlan(
            geometry, (Stage(0, budget.one_stage(geometry, 0), self._likeliest, reads=reads, per_image=True),)
        )

    def _likeliest(self, evidence: Evidence) -> Tensor:
        """Positions (b, keep) in the order they are chosen."""
        unit = normalize(evidence.hidden().float(), dim=-1)
        weights = self._weights(evidence, unit)
        if evidence.keep == evidence.visual:  # all stay, so their order does not matter
            return torch.arange(evidence.visual).expand(evidence.batch, -1)
        return _greedy(cosines(evidence.hidden()), weights, evidence.keep)

    def _weights(self, evidence: Evidence, unit: Tensor) -> Tensor:
        """What a token's relevance adds to log det K, log r^2: (b, v)."""
        by_clip = self.relevance == "clip" or (self.relevance == "auto" and bool(self.clip or evidence.clip))
        evidence.note("relevance", ["clip" if by_clip else "embeddings"] * evidence.batch)
        cosine = evidence.clip_similarity(self.clip).float() if by_clip else _likeness(evidence, unit)
        relevance = _scaled(-cosine if self.sign == "negative" else cosine)
        return 2 * relevance.log() if self.theta is None else self.theta / (1 - self.theta) * relevance


def _likeness(evidence: Evidence, unit: Tensor) -> Tensor:
    """Mean cosine of each visual token with the words of the question: (b, v), all 0 where there are none."""
    words, real = evidence.text()
    directions = normalize(words.float(), dim=-1).masked_fill(~real.unsqueeze(-1), 0.0)
    mean = directions.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp_min(1)
    return (unit @ mean.unsqueeze(-1)).squeeze(-1)


def _scaled(relevance: Tensor) -> Tensor:
    """Relevance over the range of its row, above 0; all ones where it is the same for all: (b, v)."""
    low, high = relevance.aminmax(dim=-1, keepdim=True)
    spread = high - low
    return torch.where(spread > LEAST, (relevance - low + LEAST) / spread, 1.0)


def _greedy(similarity: Tensor, weights: Tensor, keep: int) -> Tensor:
    """Tokens that make ``weights`` (b, v) + log det ``similarity`` (b, v, v) largest, one by one: (b, keep).

    ``rest`` is what the chosen tokens do not explain of each token (the square of its diagonal in Cholesky's
    factorisation, which grows by a row of ``factors`` per choice). Relevance stays out of the factors, so that
    rounding is measured against unit vectors, however irrelevant they are. O(v keep^2) in all.
    """
    batch, visual, _ = similarity.shape
    factors = similarity.new_zeros(batch, keep, visual)
    rest = similarity.diagonal(dim1=1, dim2=2).clamp_min(DUPLICATE)
    weights, chosen = weights.to(similarity, copy=True), []
    for step in range(keep):
        best = (rest.log() + weights).argmax(dim=-1, keepdim=True)  # of equals, argmax takes the first
        chosen.append(best)
        before, across = factors[:, :step], best.unsqueeze(-1)
        row = similarity.gather(1, across.expand(-1, -1, visual))
        known = before.gather(2, across.expand(-1, step, -1)).transpose(1, 2)
        new = rest.gather(1, best)
        scale = torch.where(new > DUPLICATE, new.rsqrt(), 0.0)  # 0 for a duplicate, whose rest is rounding
        factor = torch.baddbmm(row, known, before, alpha=-1).squeeze(1) * scale
        factors[:, step] = factor
        rest = torch.addcmul(rest, factor, factor, value=-1).clamp_min_(DUPLICATE)
        weights.scatter_(1, best, -torch.inf)
    return torch.cat(chosen, dim=-1)
