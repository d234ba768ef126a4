"""A trial in a few words. Imports nothing heavy."""

from __future__ import annotations

from headwise.plan import PruningPlan
from headwise.recipe import Recipe


def label(benchmark: str, recipe: Recipe, plan: PruningPlan | None) -> str:
    """Benchmark, budget, and the recipe's name or the strategies that are used. ``plan``: None if there is none."""
    if plan is None or (recipe.name and plan.stages):
        return f"{benchmark}, {recipe.budget.text}, {recipe.name or recipe.text}"
    if not plan.stages:
        return f"{benchmark}, unpruned"
    words = [benchmark, recipe.budget.text, recipe.strategies["token_pruning"].text]
    if any(stage.reads_attention for stage in plan.stages):
        words += [recipe.strategies[hook].text for hook in ("head_scoring", "head_count", "query_selection")]
    return ", ".join(words)
