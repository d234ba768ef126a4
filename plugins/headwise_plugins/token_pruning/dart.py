"""Tokens least like a few pivots stay, for duplicates are what can go (DART, EMNLP 2025, arXiv 2502.11494)."""

from __future__ import annotations

import attrs
import torch
from attrs import validators
from torch import Tensor
from torch.nn.functional import normalize

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.attention_math import ranking, taken
from headwise.numbers import whole
from headwise.plan import Evidence
from headwise.similarity import exact


@attrs.frozen(eq=False)
class Dart:
    """Once, before decoder layer ``layer``: pivots, and for each of them the tokens it resembles least.

    Pivots are the ``image_pivots`` visual tokens and the ``text_pivots`` tokens after the image with the longest keys
    (sum of absolute values) in the layer in front; no attention is computed. Visual pivots stay. The others are shared
    out equally: in turn, visual pivots first and longest keys first, each pivot takes the tokens with the smallest
    cosine to it among those that no pivot has taken, by hidden states entering the layer; pivots in front take one more
    where the shares do not come out even. With fewer tokens to keep than visual pivots, those with the longest keys
    stay; without text, visual pivots do it alone. Of equals the lower position stays.

    The paper's code rounds the share per pivot down, so that it keeps up to ``image_pivots`` more than asked for, and
    compares hidden states after the model's last norm.
    """

    layer: int = attrs.field(default=2, converter=whole, validator=validators.ge(1))
    image_pivots: int = attrs.field(default=4, converter=whole, validator=validators.ge(1))
    text_pivots: int = attrs.field(default=4, converter=whole, validator=validators.ge(0))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads keys and hidden states."""
        keep = budget.one_stage(geometry, self.layer)
        return PruningPlan(geometry, (Stage(self.layer, keep, self._unlike_pivots, reads=("keys",)),))

    def _unlike_pivots(self, evidence: Evidence) -> Tensor:
        """Positions (b, keep)."""
        visual = normalize(exact(evidence.hidden()), dim=-1)
        longest = _longest(_length(evidence.keys()), min(self.image_pivots, evidence.keep))
        words, used = self._text_pivots(evidence)
        pivots = torch.cat([taken(visual, longest), words], dim=1)
        used = torch.cat([torch.ones_like(longest, dtype=torch.bool), used], dim=1)
        rest = evidence.keep - longest.shape[1]
        return torch.cat([longest, _least_alike(visual @ pivots.transpose(1, 2), longest, _shares(used, rest))], dim=1)

    def _text_pivots(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Unit vectors (b, pivots, d), and which of them are there, bool (b, pivots)."""
        keys, real = evidence.text_keys()
        words, _ = evidence.text()
        longest = _longest(_length(keys).masked_fill(~real, -1.0), min(self.text_pivots, real.shape[1]))
        return normalize(exact(taken(words, longest)), dim=-1), real.gather(1, longest)


def _length(keys: Tensor) -> Tensor:
    """Sum of absolute values: (b, n, d) -> (b, n)."""
    return keys.float().abs().sum(dim=-1)


def _longest(lengths: Tensor, count: int) -> Tensor:
    """Positions of the greatest, in descending order: (b, n) -> (b, count)."""
    return ranking(lengths)[:, :count]


def _shares(used: Tensor, rest: int) -> Tensor:
    """How many of ``rest`` tokens each pivot that is used, bool (b, pivots), takes: integer (b, pivots)."""
    count, number = used.sum(dim=-1, keepdim=True), used.cumsum(dim=-1)
    shares = rest // count + (number <= rest % count).to(count)
    return shares.where(used, 0)


def _least_alike(cosines: Tensor, taken: Tensor, shares: Tensor) -> Tensor:
    """Positions (b, rest) that pivots take in turn, by cosines (b, v, pivots), none that is already ``taken``."""
    free = torch.ones_like(cosines[..., 0], dtype=torch.bool).scatter_(1, taken, False)
    left = free.clone()
    for pivot in range(cosines.shape[-1]):
        order = cosines[..., pivot].masked_fill(~left, torch.inf).sort(dim=-1, stable=True).indices
        left &= order.argsort(dim=-1) >= shares[:, pivot, None]
    gone = free & ~left
    return gone.nonzero()[:, 1].view(len(gone), -1)
