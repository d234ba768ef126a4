"""No visual token is pruned: the unmodified model."""

from __future__ import annotations

import attrs

from headwise import Budget, BudgetError, Geometry, PruningPlan, hookimpl


@attrs.frozen(eq=False)
class Vanilla:
    """Every visual token stays, in every layer; a budget below that is a BudgetError."""

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """A plan without stages."""
        if {budget.tokens, budget.keep} - {None, geometry.visual_tokens}:
            raise BudgetError(
                f"token_pruning strategy 'none' keeps every visual token, so {budget.text} cannot be met with the"
                f" {geometry.visual_tokens} of {geometry.name}; name a token_pruning strategy such as fastv"
            )
        return PruningPlan(geometry)
