"""Which visual tokens stay: those with the longest hidden states."""

from __future__ import annotations

import attrs
from torch import Tensor
from torch.linalg import vector_norm

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.plan import Evidence


@attrs.frozen(eq=False)
class Longest:
    """Once, before decoder layer ``layer``: the tokens with the longest hidden states stay."""

    layer: int = attrs.field(default=3, converter=int, validator=attrs.validators.ge(1))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage, which reads hidden states and no attention."""
        keep = budget.one_stage(geometry, layer=self.layer)
        return PruningPlan(geometry, (Stage(self.layer, keep, _length),))


def _length(evidence: Evidence) -> Tensor:
    """Scores (b, v); higher stays."""
    lengths: Tensor = vector_norm(evidence.hidden().float(), dim=-1)
    return lengths
