"""The trials of study A of the LLaVA-FinePruner-Head ablation and of the demo; budgets and head counts of all studies.

Every study has three references, without which its figures mean nothing: the unpruned model, ``sum`` over all heads
(FastV as published), and a control that chooses as many heads at random. The other studies are sweep files.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from headwise.budget import Budget
from headwise.errors import BudgetError
from headwise.geometry import Geometry
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.registry import installed

LAYER = 2
"""Visual tokens are dropped before this decoder layer: FastV's K throughout the LLaVA-FinePruner-Head ablation."""

PRUNING = f"token_pruning=fastv:layer={LAYER}"
SHARES = (1 / 3, 2 / 9, 1 / 9)
"""Processed averages of study A as shares of all visual tokens: 192, 128 and 64 of 576."""

_ALL = "head_count=all"
_BASELINE = "head_scoring=sum"
_CONTROL = "head_scoring=random"
_LAST = "query_selection=last_token"

OWN_COUNT = ("adaptive",)
"""Scorers that decide themselves how many heads they keep."""


@attrs.frozen
class Case:
    """One trial of a study: a benchmark, strategy texts, a budget, and the named recipe that the texts change."""

    benchmark: str
    strategies: tuple[str, ...]
    budget: Budget = attrs.field(factory=Budget)
    recipe: str | None = None


def recipes(cases: Sequence[Case], **settings: Any) -> list[Recipe]:
    """The recipe of every case, with settings that hold for the whole study.

    Cases with the same strategies share one, because looking up installed strategies takes a while.
    """
    wanted = dict.fromkeys((case.recipe, case.strategies) for case in cases)
    built = {(name, texts): Recipe.of(*texts, name=name, **settings) for name, texts in wanted}
    return [attrs.evolve(built[case.recipe, case.strategies], budget=case.budget) for case in cases]


def head_counts(heads: int) -> tuple[int, ...]:
    """Three quarters, half and a quarter of a model's heads: 24, 16 and 8 of 32."""
    return tuple(dict.fromkeys(max(1, round(share * heads)) for share in (0.75, 0.5, 0.25)))


def half(heads: int) -> int:
    """Half of a model's heads."""
    return max(1, heads // 2)


def averages(geometry: Geometry, layer: int = LAYER) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Processed averages for study A, and a sentence for each that this model cannot meet.

    The layers before ``layer`` process all visual tokens. Where they alone exceed an average, it cannot be met, and is
    replaced by the average that results from keeping one token in 36, rounded down to a whole number: 27 for 144 tokens
    and 12 layers.
    """
    smallest = _average(geometry, layer, 1)
    least = max(math.floor(_average(geometry, layer, max(1, geometry.visual_tokens // 36))), math.ceil(smallest))
    wanted = [round(share * geometry.visual_tokens) for share in SHARES]
    messages = tuple(
        f"an average of {average} tokens is out of reach of {geometry.name} when pruning before layer {layer}"
        f" (the smallest is {smallest:.4g}); {least} is taken instead"
        for average in wanted
        if average < smallest
    )
    met = [float(average if average >= smallest else least) for average in wanted]
    return tuple(sorted(set(met), reverse=True)), messages


def _average(geometry: Geometry, layer: int, keep: int) -> float:
    return (layer * geometry.visual_tokens + (geometry.layers - layer) * keep) / geometry.layers


def study_a(
    *, benchmarks: Sequence[str], budgets: Sequence[Budget], heads: Sequence[int], scorers: Sequence[str] | None = None
) -> list[Case]:
    """Head-scoring strategies x head counts x budgets x benchmarks; the query is the last token."""
    scorers = _unique(scorers or list(installed("head_scoring")))
    return [
        Case(benchmark, *case)
        for benchmark in benchmarks
        for case in [((), Budget()), *(case for budget in budgets for case in _head_cases(budget, heads, scorers))]
    ]


def _head_cases(
    budget: Budget, heads: Sequence[int], scorers: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], Budget]]:
    """Baseline and controls come first, so that the results of an interrupted study can be interpreted."""
    yield (PRUNING, _BASELINE, _ALL, _LAST), budget
    counts = [f"head_count=fixed:heads={count}" for count in heads]
    for count in counts:
        yield (PRUNING, _CONTROL, count, _LAST), budget
    for scorer in scorers:
        if scorer == "random":
            continue
        for count in [_ALL] if scorer.partition(":")[0] in OWN_COUNT else counts:
            yield (PRUNING, f"head_scoring={scorer}", count, _LAST), budget


UNPRUNED, REFERENCE = "vanilla", "fastv"
"""Recipes in every comparison of methods: the unpruned model, and the one that all others are compared with."""


def pruning_recipes() -> list[str]:
    """Installed recipes that prune visual tokens and evict no KV entries."""
    built = {name: Recipe.of(name=name) for name in installed("recipe")}
    return [
        name
        for name, recipe in built.items()
        if recipe.strategies["token_pruning"].name != "none" and "kv_eviction" not in recipe.strategies
    ]


def common_averages(geometry: Geometry, names: Sequence[str]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Processed averages that all compared recipes can meet, and a sentence where these differ from study A's.

    An average of study A that some recipe cannot meet is replaced by the smallest one that all can meet. Where fewer
    than three averages remain, half of the visual tokens is added.
    """
    floors = {name: smallest_average(Recipe.of(name=name), geometry) for name in names}
    least = max(floors.values())
    wanted, _ = averages(geometry)
    met = {max(average, float(least)) for average in wanted}
    met |= {float(geometry.visual_tokens // 2)} if len(met) < len(SHARES) else set()
    missed = [average for average in wanted if average < least]
    messages = (_missed(missed, floors, least),) if missed else ()
    return tuple(sorted(met, reverse=True)), messages


def _missed(missed: Sequence[float], floors: Mapping[str, int], least: int) -> str:
    """A sentence: which averages are out of reach, of which recipes, and what is taken instead."""
    out_of_reach = " or ".join(f"{average:g}" for average in missed)
    who = ", ".join(name for name, floor in floors.items() if floor > missed[0])
    return (
        f"an average of {out_of_reach} tokens is out of reach of {who}; {least} is the least that all can meet"
        f" (give --tokens {missed[0]:g} to compare the others there)"
    )


def can_meet(recipe: Recipe, geometry: Geometry, average: float) -> bool:
    """Whether a recipe can have this processed average."""
    try:
        Pipeline(attrs.evolve(recipe, budget=Budget(tokens=average))).plan(geometry)
    except BudgetError:
        return False
    return True


def smallest_average(recipe: Recipe, geometry: Geometry) -> int:
    """The smallest whole processed average that a recipe can meet; at most all visual tokens."""
    whole = range(1, geometry.visual_tokens)
    return bisect.bisect_left(whole, True, key=lambda average: can_meet(recipe, geometry, average)) + 1


def demo(*, benchmarks: Sequence[str], keep: int, heads: int, scorers: Sequence[str] | None = None) -> list[Case]:
    """Every head-scoring strategy at one budget and head count, and two ways to drop tokens without attention."""
    budget = Budget(keep=keep)
    cases: list[Case] = []
    for benchmark in benchmarks:
        found = study_a(benchmarks=[benchmark], budgets=[budget], heads=[heads], scorers=scorers)
        blind = [Case(benchmark, (f"token_pruning={name}:layer={LAYER}",), budget) for name in ("random", "uniform")]
        cases += [found[0], *blind, *found[1:]]
    return cases


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
