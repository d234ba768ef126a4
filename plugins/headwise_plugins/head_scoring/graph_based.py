"""Heads as a graph: neighbours look at the same tokens, and pass on what is remarkable about them.

After the strategy of the same name in LLaVA-FinePruner-Head, without its second softmax, which joined every head to
every other and left nothing to pass on.
"""

from __future__ import annotations

import attrs
import torch
from attrs import converters, validators
from torch import Tensor

from headwise import hookimpl
from headwise.attention_math import entropy, head_cosines, shares
from headwise.numbers import number, whole
from headwise.similarity import exact, rounding


@attrs.frozen(eq=False)
class GraphBased:
    """Features of a head propagated among heads that look alike, and averaged; positive is above the average head.

    Features of the attention p renormalised over the image, standardised over the heads of a row (population standard
    deviation; 0 where heads do not differ): sum p^2, entropy, max p, variance, share of tokens above the mean. Heads
    whose cosine exceeds ``threshold`` (0..1) are neighbours; in each of ``rounds`` a head adds the mean of its
    neighbours' features to its own, then, with ``relu`` as in the origin, drops negative ones. A score depends on the
    company a head is in.
    """

    threshold: float = attrs.field(
        default=0.1, converter=number, validator=validators.and_(validators.ge(0), validators.lt(1))
    )
    rounds: int = attrs.field(default=2, converter=whole, validator=[validators.ge(0), validators.le(1000)])
    relu: bool = attrs.field(default=False, converter=converters.to_bool)

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Mean propagated feature: (b, h, v) -> (b, h)."""
        p = shares(exact(attention))
        features = _standardised(_features(p))
        graph = self._graph(p)
        for _ in range(self.rounds):
            features = features + torch.einsum("bhg,bgf->bhf", graph, features)
            features = features.relu() if self.relu else features
        return features.mean(dim=-1)

    def _graph(self, p: Tensor) -> Tensor:
        """Weights of a head's neighbours, (b, h, h), summing to 1, or to 0 for a head without any."""
        alike = head_cosines(p) > self.threshold
        alike &= ~torch.eye(p.shape[1], dtype=torch.bool, device=p.device)
        return alike.to(p) / alike.sum(dim=-1, keepdim=True).clamp_min(1)


def _features(p: Tensor) -> Tensor:
    """(b, h, v) -> (b, h, features)."""
    even = 1 / p.shape[-1]
    above = (p > even * (1 + rounding(p))).to(p).mean(dim=-1)  # rounding lifts no token above the mean
    variance = (p - even).square().mean(dim=-1)
    return torch.stack([p.square().sum(dim=-1), entropy(p), p.amax(dim=-1), variance, above], dim=-1)


def _standardised(features: Tensor) -> Tensor:
    """Zero mean and unit deviation over heads; 0 where they are equal up to rounding, which would be blown up."""
    deviation = features - features.mean(dim=1, keepdim=True)
    scale = deviation.square().mean(dim=1, keepdim=True).sqrt()
    flat = scale <= rounding(features) * features.amax(dim=1, keepdim=True)
    return torch.where(flat, 0.0, deviation / scale.masked_fill(flat, 1))
