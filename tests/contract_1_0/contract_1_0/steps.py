"""Prunes twice, asks for queries, scores and counts of its own, and reads attention and hidden states."""

from __future__ import annotations

import attrs
from torch import Tensor

from headwise import Budget, Geometry, Preset, PruningPlan, Stage, hookimpl
from headwise.plan import Evidence


@attrs.frozen(eq=False)
class Steps:
    """Half of the tokens leave before layer ``layer``, by attention."""

    layer: int = attrs.field(default=2, converter=int, validator=attrs.validators.ge(1))

    asks = Preset("query_selection=last_token", "head_scoring=sum", "head_count=all")

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads attention."""
        keep = budget.one_stage(geometry, layer=self.layer)
        return PruningPlan(geometry, (Stage(self.layer, keep, _seen, reads=("attention",)),))


def _seen(evidence: Evidence) -> Tensor:
    """Scores (b, v)."""
    scores: Tensor = evidence.attention()
    return scores
