"""The grids of the studies: every trial once, with the references its figures need."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import Budget, Geometry, StrategyError, shape
from headwise.registry import installed
from headwise_lab.sweeps import studies
from headwise_lab.sweeps.cases import cases as cases_of
from headwise_lab.sweeps.cases import recipes_of
from headwise_lab.sweeps.schema import Budgets, Grid, SweepFile
from headwise_lab.sweeps.studies import (
    LAYER,
    averages,
    common_averages,
    demo,
    half,
    head_counts,
    pruning_recipes,
    recipes,
    study_a,
)
from headwise_lab.trial.run import check

BUDGETS = [Budget(tokens=48), Budget(tokens=32)]
MODEL = shape("demo-llava")
EVERY_METHOD = recipes_of(SweepFile(recipes=("*",)))
QUERIES = {
    "last_token",
    "last_n_tokens",
    "last_5_tokens",
    "text_tokens_only",
    "weighted_recent",
    "system_and_text",
    "attention_weighted",
    "max_attention_token",
    "adaptive_by_length",
}


def chosen(cases):
    """Hook -> canonical text, for every case."""
    return [{hook: strategy.text for hook, strategy in recipe.strategies.items()} for recipe in recipes(cases)]


def study_b(budget, heads):
    """Study B as a sweep file says it."""
    grid = Grid(head_scoring=("variance",), heads=(heads,), query_selection=("*",))
    return cases_of(SweepFile(study="b", grids=(grid,), budgets=Budgets(tokens=(budget.tokens,))), "x", MODEL)


def methods(benchmark, *names, budgets=BUDGETS):
    """A comparison of methods as a sweep file says it."""
    tokens = Budgets(tokens=tuple(budget.tokens for budget in budgets))
    return cases_of(SweepFile(study="methods", recipes=names, budgets=tokens), benchmark, MODEL)


def bare(text):
    return text.partition(":")[0]


def test_study_a_is_the_full_grid_with_baseline_and_control_at_every_budget():
    cases = study_a(benchmarks=["x", "y"], budgets=BUDGETS, heads=[6, 4])
    assert len(set(cases)) == len(cases)
    scorers = [name for name in installed("head_scoring") if name != "adaptive"]
    assert len(scorers) >= 13
    texts = chosen(cases)
    found = {
        (case.benchmark, case.budget, bare(text["head_scoring"]), text["head_count"])
        for case, text in zip(cases, texts, strict=True)
    }
    grid = set(product(["x", "y"], BUDGETS, scorers, ["fixed:heads=6", "fixed:heads=4"]))
    extra = set(product(["x", "y"], BUDGETS, ["sum", "adaptive"], ["all"]))
    unpruned = {(name, Budget(), "sum", "all") for name in ("x", "y")}
    assert found == grid | extra | unpruned
    assert {text["query_selection"] for text in texts} == {"last_token"}
    assert {text["token_pruning"] for text in texts} == {"none", f"fastv:layer={LAYER}"}


def test_study_a_compares_only_the_strategies_asked_for_and_their_references():
    cases = study_a(benchmarks=["x"], budgets=BUDGETS[:1], heads=[4], scorers=["sparsity:form=hoyer", "adaptive"])
    assert [(text["head_scoring"], text["head_count"]) for text in chosen(cases)] == [
        ("sum", "all"),  # unpruned
        ("sum", "all"),
        ("random:seed=0", "fixed:heads=4"),
        ("sparsity:form=hoyer", "fixed:heads=4"),
        ("adaptive", "all"),
    ]


def test_study_b_has_the_nine_query_strategies_of_the_seed_at_one_scorer():
    cases = study_b(BUDGETS[0], heads=4)
    texts = chosen(cases)
    compared = texts[3:]
    assert {bare(text["query_selection"]) for text in compared} >= QUERIES
    assert {bare(text["head_scoring"]) for text in compared} == {"variance"}
    assert {text["head_count"] for text in compared} == {"fixed:heads=4"}
    references = [(bare(text["head_scoring"]), text["query_selection"]) for text in texts[:3]]
    assert references == [("sum", "last_token"), ("sum", "last_token"), ("random", "last_token")]
    assert len(set(cases)) == len(cases)


def test_the_demo_has_every_scorer_and_three_ways_not_to_ask_heads():
    cases = demo(benchmarks=["x"], keep=16, heads=4)
    plans = [check(recipe, shape("demo-llava")) for recipe in recipes(cases)]
    assert {plan.kept for plan in plans} == {16, 144}
    blind = [
        bare(text["token_pruning"])
        for text, plan in zip(chosen(cases), plans, strict=True)
        if not any(stage.reads_attention for stage in plan.stages)
    ]
    assert blind == ["none", "random", "uniform"]
    assert {bare(text["head_scoring"]) for text in chosen(cases)} == set(installed("head_scoring"))


def test_methods_are_every_pruning_recipe_at_every_budget_with_the_unpruned_model_once():
    cases = [*methods("x", "*"), *methods("y", "*")]
    assert len(set(cases)) == len(cases)
    named = pruning_recipes()
    assert {"fastv", "finepruner", "sparsevlm", "pdrop", "random", "random-layer-2"} <= set(named)
    assert "vanilla" not in named
    found = {(case.benchmark, case.budget, case.recipe) for case in cases}
    assert found == set(product(["x", "y"], BUDGETS, named)) | {(name, Budget(), "vanilla") for name in ("x", "y")}
    assert {case.strategies for case in cases} == {()}


def test_methods_asked_for_stand_beside_fastv_which_comes_first():
    cases = methods("x", "dart", "vanilla", "fastv")
    assert [case.recipe for case in cases] == ["vanilla", "fastv", "dart", "fastv", "dart"]


def test_methods_keep_what_their_recipes_set_unless_it_is_given():
    cases = methods("x", "finepruner-dynamic", budgets=BUDGETS[:1])
    assert [recipe.aggregate for recipe in recipes(cases, aggregate=None)] == ["mean", "mean", "weighted"]
    assert [recipe.aggregate for recipe in recipes(cases, aggregate="mean")] == ["mean", "mean", "mean"]


@pytest.mark.parametrize("name", ["demo-llava", "llava-1.5-7b"])
def test_every_method_meets_the_averages_that_methods_are_compared_at(name):
    geometry = shape(name)
    found, told = common_averages(geometry, EVERY_METHOD)
    assert len(found) == 3
    cases = methods("x", "*", budgets=[Budget(tokens=average) for average in found])
    for case, recipe in zip(cases, recipes(cases), strict=True):
        assert abs(check(recipe, geometry).average - (case.budget.tokens or geometry.visual_tokens)) < 1
    (sentence,) = told
    assert "is out of reach of feather" in sentence


def test_methods_that_prune_early_are_compared_at_the_averages_of_the_seed():
    assert common_averages(shape("llava-1.5-7b"), ["fastv", "dart", "random"]) == ((192.0, 128.0, 64.0), ())


def test_recipes_that_do_more_than_prune_are_no_methods(monkeypatch):
    both = ("token_pruning=fastv", "kv_eviction=snapkv")
    real = studies.Recipe.of

    def of(*texts, name=None, **more):
        return real(*both) if name == "dart" else real(*texts, name=name, **more)

    monkeypatch.setattr(studies.Recipe, "of", of)
    assert {"fastv", "pdrop"} <= set(pruning_recipes())
    assert "dart" not in pruning_recipes()


def test_recipes_carry_the_budget_and_the_settings_of_the_study():
    cases = study_a(benchmarks=["x"], budgets=BUDGETS, heads=[4], scorers=["sum"])
    built = recipes(cases, positions="compact")
    assert [recipe.budget for recipe in built] == [case.budget for case in cases]
    assert {recipe.positions for recipe in built} == {"compact"}


def test_default_budgets_are_those_of_the_seed_where_the_model_can_meet_them():
    assert averages(shape("llava-1.5-7b")) == ((192.0, 128.0, 64.0), ())
    found, told = averages(shape("demo-llava"))
    assert found == (48.0, 32.0, 27.0)
    assert len(told) == 1
    assert "16" in told[0]
    assert "24.83" in told[0]
    assert "27" in told[0]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(layers=st.integers(LAYER + 1, 48), visual=st.integers(1, 3000))
def test_default_budgets_are_feasible_for_every_model(layers, visual):
    geometry = Geometry(
        name="any", layers=layers, heads=4, kv_heads=4, head_dim=8, hidden=32, intermediate=64, visual_tokens=visual
    )
    found, _ = averages(geometry)
    assert 1 <= len(found) <= 3
    assert all(1 <= Budget(tokens=average).one_stage(geometry, LAYER) <= visual for average in found)


@pytest.mark.parametrize(("heads", "expected"), [(32, (24, 16, 8)), (8, (6, 4, 2)), (40, (30, 20, 10)), (1, (1,))])
def test_head_counts_are_those_of_the_seed(heads, expected):
    assert head_counts(heads) == expected


def test_half_of_one_head_is_one():
    assert [half(heads) for heads in (1, 8, 9)] == [1, 4, 4]


def test_an_unknown_strategy_is_found_when_the_recipe_is_built():
    cases = study_a(benchmarks=["x"], budgets=BUDGETS[:1], heads=[4], scorers=["sparcity"])
    with pytest.raises(StrategyError, match="did you mean sparsity"):
        recipes(cases)
