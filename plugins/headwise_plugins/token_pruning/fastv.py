"""The visual tokens that the prompt looks at most after a few layers stay (FastV, ECCV 2024, arXiv 2403.06764)."""

from __future__ import annotations

import attrs
from torch import Tensor

from headwise import Budget, Geometry, Preset, PruningPlan, Stage, hookimpl
from headwise.numbers import whole
from headwise.plan import Evidence


@attrs.frozen(eq=False)
class FastV:
    """Once, before decoder layer ``layer``: the tokens with the most attention in the layer in front of it stay.

    Whose attention is what query_selection and head_scoring choose; by default the last token's, averaged over all
    heads, which is FastV. With fewer heads it is FastV + FinePruner. ``layer`` layers (FastV's K) compute on all
    tokens. Of equally attended tokens the lower position stays.
    """

    asks = Preset("query_selection=last_token", "head_scoring=sum", "head_count=all")

    layer: int = attrs.field(default=2, converter=whole, validator=attrs.validators.ge(1))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads attention."""
        keep = budget.one_stage(geometry, self.layer)
        return PruningPlan(geometry, (Stage(self.layer, keep, _attended, reads=("attention",)),))


def _attended(evidence: Evidence) -> Tensor:
    return evidence.attention()
