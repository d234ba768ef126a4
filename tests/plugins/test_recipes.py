"""The recipes that ship: what each is made of, and that parts of it can be exchanged and the rest stays."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from headwise import shape
from headwise.pipeline import Pipeline
from headwise.recipe import Preset, Recipe, named_recipe
from headwise.source import describe

SHIPPED = {entry.name: entry for entry in entry_points(group="headwise.recipe") if entry.dist.name == "headwise"}
FASTV = ("fastv:layer=2", "last_token", "sum", "all")
BEFORE_THE_MODEL = ("cdpruner", "divprune", "pooling", "random", "tome", "uniform", "visionzip", "vispruner")


def parts(recipe):
    """Token pruning, query selection, head scoring and head count as texts."""
    hooks = ("token_pruning", "query_selection", "head_scoring", "head_count")
    return tuple(recipe.strategies[hook].text for hook in hooks)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_is_a_preset_that_says_what_it_is_and_plans_a_model(name):
    assert isinstance(named_recipe(name), Preset)
    found = describe(SHIPPED[name].module, SHIPPED[name].attr)
    assert (found.options, (found.summary or "").endswith(".")) == ((), True)
    geometry = shape("llava-1.5-7b")
    plan = Pipeline(Recipe.of(name=name, tokens=None if name == "vanilla" else 192)).plan(geometry)
    assert pytest.approx(plan.average, abs=1) == (576 if name == "vanilla" else 192)


@pytest.mark.parametrize("name", BEFORE_THE_MODEL)
def test_what_prunes_before_the_language_model_keeps_as_many_tokens_as_it_processes(name):
    plan = Pipeline(Recipe.of(name=name, tokens=128)).plan(shape("llava-1.5-7b"))
    assert [(stage.layer, stage.keep) for stage in plan.stages] == [(0, 128)]


@pytest.mark.parametrize("name", ["fastv", "dart", "random-layer-2", "uniform-layer-2"])
def test_what_prunes_where_fastv_does_keeps_as_many_tokens_as_fastv(name):
    plan = Pipeline(Recipe.of(name=name, tokens=128)).plan(shape("llava-1.5-7b"))
    assert [(stage.layer, stage.keep) for stage in plan.stages] == [(2, 98)]


@pytest.mark.parametrize(
    ("name", "queries", "scoring", "count"),
    [
        ("fastv", *FASTV[1:]),
        ("feather", *FASTV[1:]),
        ("pdrop", *FASTV[1:]),
        ("finepruner", "last_token", "sparsity:form=l2", "fixed:share=0.5"),
        ("finepruner-dynamic", "last_token", "adaptive", "all"),
        ("sparsevlm", "raters:scale=none", "sum", "all"),
        ("sparsevlm-plus", "raters:scale=none", "sum", "fixed:share=0.5"),
    ],
)
def test_methods_that_read_attention_ask_the_published_queries_and_heads(name, queries, scoring, count):
    assert (queries, scoring, count) == parts(Recipe.of(name=name))[1:]


def test_only_the_dynamic_finepruner_weighs_heads_by_their_scores():
    weighted = [name for name in SHIPPED if Recipe.of(name=name).aggregate == "weighted"]
    assert weighted == ["finepruner-dynamic"]
    assert {"keep"} == {Recipe.of(name=name).positions for name in SHIPPED}


def test_a_setting_that_is_given_counts_and_one_that_is_not_does_not():
    assert Recipe.of(name="finepruner-dynamic", aggregate=None).aggregate == "weighted"
    assert Recipe.of(name="finepruner-dynamic", aggregate="mean").aggregate == "mean"
    assert Recipe.of(name="sparsevlm", positions="compact").positions == "compact"


def test_heads_can_be_chosen_inside_a_method_that_uses_all_of_them():
    published = parts(Recipe.of(name="sparsevlm"))
    chosen = parts(Recipe.of("sparsity", "fixed:heads=4", name="sparsevlm"))
    assert (*published[:2], "sparsity:form=l2", "fixed:heads=4") == chosen


def test_a_method_can_be_exchanged_and_the_settings_stay():
    recipe = Recipe.of("feather", name="finepruner-dynamic")
    assert parts(recipe)[1:] == ("last_token", "adaptive", "all")
    assert (recipe.strategies["token_pruning"].name, recipe.aggregate) == ("feather", "weighted")
