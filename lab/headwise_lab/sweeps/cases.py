"""Makes cases of a sweep file for one model: its budgets, its head counts, and all combinations of a grid's lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from headwise.budget import Budget
from headwise.geometry import Geometry
from headwise.registry import installed
from headwise.text import StrategyText
from headwise_lab.sweeps.schema import Grid, SweepFile
from headwise_lab.sweeps.studies import (
    OWN_COUNT,
    REFERENCE,
    UNPRUNED,
    Case,
    averages,
    common_averages,
    head_counts,
    pruning_recipes,
)
from headwise_lab.sweeps.values import EVERY

ALL, BASELINE, CONTROL, LAST = "all", "sum", "random", "last_token"


def cases(sweep: SweepFile, benchmark: str, geometry: Geometry) -> list[Case]:
    """The cases of one model on one benchmark; the unpruned model, baselines and controls come first.

    Two cases may be the same trial in different words; ``plan_of`` keeps the first of them.
    """
    found = [Case(benchmark, (), recipe=UNPRUNED)] if sweep.unpruned else []
    budgets, _ = budgets_for(sweep, geometry)
    for budget in budgets:
        found += [Case(benchmark, (), budget, recipe=name) for name in recipes_of(sweep)]
        for texts in grid_texts(sweep, geometry.heads):
            found.append(Case(benchmark, texts, budget))
    return list(dict.fromkeys(found))


def budgets_for(sweep: SweepFile, geometry: Geometry) -> tuple[list[Budget], tuple[str, ...]]:
    """Budgets for one model, and sentences about those that headwise chose because the file gives none."""
    given = sweep.budgets
    shares = tuple(share * geometry.visual_tokens for share in given.shares)
    tokens, messages = (*given.tokens, *shares), tuple[str, ...]()
    if not (tokens or given.keep):
        tokens, messages = usual_averages(sweep, geometry)
    return [*(Budget(tokens=average) for average in tokens), *(Budget(keep=count) for count in given.keep)], messages


def usual_averages(sweep: SweepFile, geometry: Geometry) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The averages of the LLaVA-FinePruner-Head ablation that the model and all compared recipes can meet."""
    pruning = [name for name in recipes_of(sweep) if name != UNPRUNED]
    return common_averages(geometry, pruning) if pruning else averages(geometry)


def recipes_of(sweep: SweepFile) -> list[str]:
    """Recipes that are run at every budget, the reference first; not the unpruned model, which has no budget."""
    if not sweep.recipes:
        return []
    listed = [name for given in sweep.recipes for name in (pruning_recipes() if given == EVERY else [given])]
    first = [REFERENCE] if sweep.baseline else []
    return [name for name in dict.fromkeys([*first, *listed]) if name != UNPRUNED]


def grid_texts(sweep: SweepFile, heads: int) -> Iterator[tuple[str, ...]]:
    """Strategy texts of all grids for a model with ``heads`` heads: first all references, then all combinations."""
    for grid in sweep.grids:
        yield from _references(sweep, grid, heads)
    for grid in sweep.grids:
        yield from _product(grid, heads)


def _references(sweep: SweepFile, grid: Grid, heads: int) -> Iterator[tuple[str, ...]]:
    for pruning in _spread("token_pruning", grid.token_pruning):
        if sweep.baseline:
            yield _texts(pruning, BASELINE, ALL, LAST)
        if sweep.control:
            for count in counts(grid, heads):
                if count != ALL:  # choosing all heads at random is the baseline
                    yield _texts(pruning, CONTROL, count, LAST)


def _product(grid: Grid, heads: int) -> Iterator[tuple[str, ...]]:
    for pruning, scorer in product(
        _spread("token_pruning", grid.token_pruning), _spread("head_scoring", grid.head_scoring)
    ):
        for count, query in product(counts(grid, heads, scorer), _spread("query_selection", grid.query_selection)):
            yield _texts(pruning, scorer, count, query)


def counts(grid: Grid, heads: int, scorer: str = BASELINE) -> list[str]:
    """Head-count strategies for a scorer: those listed and the numbers; without any, 3/4, 1/2 and 1/4 of the heads."""
    listed = _spread("head_count", grid.head_count)
    shares = [max(1, round(share * heads)) for share in grid.head_shares]
    numbers: Sequence[int] = (*grid.heads, *shares)
    if not (listed or numbers):
        numbers = head_counts(heads)
    own = StrategyText.parse(scorer).name in OWN_COUNT
    fixed = [ALL] if own and numbers else [f"fixed:heads={number}" for number in numbers]
    return list(dict.fromkeys([*listed, *fixed]))


def _spread(hook: str, texts: Sequence[str]) -> list[str]:
    """The texts without ``hook=``; ``*`` is replaced by all installed strategies of the hook."""
    spread: dict[str, None] = {}
    for text in texts:
        spread |= dict.fromkeys(installed(hook) if text == EVERY else [text.removeprefix(f"{hook}=")])
    return list(spread)


def _texts(pruning: str, scorer: str, count: str, query: str) -> tuple[str, ...]:
    return f"token_pruning={pruning}", f"head_scoring={scorer}", f"head_count={count}", f"query_selection={query}"
