"""Visual tokens that are as far from each other as can be stay (DivPrune, CVPR 2025, arXiv 2503.02175)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.attention_math import taken
from headwise.numbers import whole
from headwise.plan import Evidence
from headwise.similarity import cosines


@attrs.frozen(eq=False)
class DivPrune:
    """Once, before decoder layer ``layer``, for every image by itself: a greedy answer to max-min diversity.

    The first token is the one farthest from its nearest neighbour, by cosine distance of hidden states; each next one
    is the farthest from those that stay already. Neither attention nor the question has a say. Before layer 0, where
    the paper prunes, tokens leave before the language model. Duplicates come last; of equals the lower position stays.
    """

    layer: int = attrs.field(default=0, converter=whole, validator=attrs.validators.ge(0))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads hidden states."""
        keep = budget.one_stage(geometry, self.layer)
        return PruningPlan(geometry, (Stage(self.layer, keep, _scattered, per_image=True),))


def _scattered(evidence: Evidence) -> Tensor:
    """Positions (b, keep) in the order they are chosen."""
    distances = _distances(evidence.hidden())
    nearest = distances.diagonal_scatter(torch.full_like(distances[:, 0], torch.inf), dim1=1, dim2=2).amin(dim=-1)
    chosen = [nearest.argmax(dim=-1, keepdim=True)]  # of equals, argmax takes the first
    nearest = torch.full_like(nearest, torch.inf)
    for _ in range(evidence.keep - 1):
        nearest.scatter_(1, chosen[-1], -1.0)  # below every distance, so that a token is chosen once
        nearest = torch.minimum(nearest, taken(distances, chosen[-1]).squeeze(1))
        chosen.append(nearest.argmax(dim=-1, keepdim=True))
    return torch.cat(chosen, dim=-1)


def _distances(hidden: Tensor) -> Tensor:
    """Cosine distances (b, v, v), 0 between duplicates; a token of length 0 is at distance 1 from all others."""
    return (1 - cosines(hidden)).clamp_min(0.0)
