"""The most similar tokens merge, pair by pair, until few are left (ToMe, ICLR 2023, arXiv 2210.09461)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.attention_math import ranking, taken
from headwise.numbers import whole_or_none
from headwise.plan import Evidence, Merged
from headwise.similarity import cosines, exact


@attrs.frozen(eq=False)
class Tome:
    """Before the language model: rounds of bipartite soft matching merge tokens into each other.

    A round splits the tokens alternately into A and B, and each of A finds its most similar partner in B. The most
    similar pairs merge at the place of the partner: a merged token is the mean of all tokens it stands for. The next
    round sees what is left of A, most similar first, and then B, as in the published code. ToMe does this within the
    vision tower, a round per layer; here it follows the tower, and merges what the language model would be given.
    ``metric``: similar are the tower's ``keys`` (as published), or its ``features``. ``step``: tokens that leave in a
    round, at most half; by default half. Of equals the token or pair that comes first goes first.
    """

    metric: str = attrs.field(default="keys", validator=attrs.validators.in_(("keys", "features")))
    step: int | None = attrs.field(
        default=None,
        converter=whole_or_none,
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads the vision tower's keys or features."""
        keep = budget.one_stage(geometry, 0)
        merged = min(keep, geometry.visual_tokens - keep)  # an upper bound: how many merge depends on the image
        return PruningPlan(geometry, (Stage(0, keep, self._merged, reads=("vision",), merged=merged, per_image=True),))

    def _merged(self, evidence: Evidence) -> Merged:
        """Each remaining token is the mean of the tokens it stands for."""
        metric = evidence.vision_keys() if self.metric == "keys" else evidence.features()
        tokens = _Tokens.of(metric)
        while (surplus := tokens.count - evidence.keep) > 0:
            tokens = tokens.matched(min(surplus, self.step or surplus, tokens.count // 2))
        members = one_hot(tokens.owner, tokens.count).mT.float()
        return Merged(tokens.place, members / members.sum(dim=-1, keepdim=True))


@attrs.frozen(eq=False)
class _Tokens:
    """n tokens of each row between two rounds, and the v tokens that they stand for.

    ``total`` float64 (b, n, c): what similarity is computed from, added up over the tokens that each stands for, and
    ``size`` (b, n, 1), how many those are; sums and means of equal tokens are exact, so that equals stay equal.
    ``place`` (b, n): where it stands. ``owner`` (b, v): which of the n stands for each of the v.
    """

    total: Tensor
    size: Tensor
    place: Tensor
    owner: Tensor

    @classmethod
    def of(cls, metric: Tensor) -> _Tokens:
        """Tokens before the first round: each stands for itself."""
        place = torch.arange(metric.shape[1], device=metric.device).expand(metric.shape[:2])
        total = exact(metric)
        return cls(total, torch.ones_like(total[..., :1]), place, place)

    @property
    def count(self) -> int:
        """n."""
        return self.place.shape[-1]

    def matched(self, merging: int) -> _Tokens:
        """One round: ``merging`` of every second token, at most all that have a partner, merge into those between."""
        partner, order = _pairs(self.total / self.size)
        gone, left = order[:, :merging], order[:, merging:]
        into = partner.gather(-1, gone)

        def joined(values: Tensor) -> Tensor:
            every_second, between = values[:, ::2], values[:, 1::2]
            where = into.unsqueeze(-1).expand(-1, -1, values.shape[-1])
            return torch.cat(
                (taken(every_second, left), between.scatter_add(1, where, taken(every_second, gone))), dim=1
            )

        return _Tokens(
            joined(self.total),
            joined(self.size),
            torch.cat((self.place[:, ::2].gather(-1, left), self.place[:, 1::2]), dim=-1),
            _renumbered(order, partner, merging, self.count).gather(-1, self.owner),
        )


def _pairs(metric: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar token between for every second one (b, ceil(n / 2)), and their order, most similar first."""
    best, partner = cosines(metric[:, ::2], metric[:, 1::2]).max(dim=-1)  # the first of equals
    return partner, ranking(best)


def _renumbered(order: Tensor, partner: Tensor, merging: int, count: int) -> Tensor:
    """Which token of the next round stands for each of this one: (b, n)."""
    left = order.shape[-1] - merging
    rank = order.argsort(dim=-1)
    after = torch.empty((len(order), count), dtype=torch.long, device=order.device)
    after[:, ::2] = torch.where(rank < merging, left + partner, rank - merging)
    after[:, 1::2] = left + torch.arange(count // 2, device=order.device)
    return after
