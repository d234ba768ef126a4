"""Evenly spaced visual tokens stay: the control that knows nothing of the picture."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.numbers import whole
from headwise.plan import Evidence


@attrs.frozen(eq=False)
class Uniform:
    """Once, before decoder layer ``layer``: tokens at equal distances in reading order, floor((i + 0.5) * v / keep).

    Before layer 0, tokens leave before the language model.
    """

    layer: int = attrs.field(default=2, converter=whole, validator=attrs.validators.ge(0))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads nothing of the model."""
        return PruningPlan(geometry, (Stage(self.layer, budget.one_stage(geometry, self.layer), _spaced),))


def _spaced(evidence: Evidence) -> Tensor:
    """Positions (b, keep), the same in every row; at most v of them, so no two fall on one token."""
    middles = 2 * torch.arange(evidence.keep) + 1  # whole numbers, so that no rounding repeats a position
    return (middles * evidence.visual // (2 * evidence.keep)).repeat(evidence.batch, 1)
