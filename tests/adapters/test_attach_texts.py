"""``attach`` and ``cache`` take strategy texts as well as a Recipe, and show in one line what they do."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from tests.adapters.conftest import tiny_llava
from tests.adapters.decoders import tiny

import headwise
from headwise.recipe import Recipe

WINDOW = "streaming:sinks=2,window=6"


def logits(model, ids, **attached):
    with torch.no_grad():
        return model(ids, **attached).logits


def test_texts_mean_what_the_recipe_of_them_means():
    model, ids = tiny("llama"), torch.arange(5, 35)[None]
    with headwise.attach(model, Recipe.of(WINDOW)):
        wanted = logits(model, ids)
    with headwise.attach(model, WINDOW) as attached:
        assert torch.equal(logits(model, ids), wanted)
    assert repr(attached) == "<headwise on this model: KV entries by streaming:sinks=2,window=6,positions=relative>"
    assert torch.equal(logits(model, ids, past_key_values=headwise.cache(model, WINDOW)), wanted)


def test_settings_go_with_texts_and_the_plan_is_told_in_one_line():
    model = tiny_llava()
    with headwise.attach(model, "fastv:layer=2", WINDOW, keep=3, positions="compact") as attached:
        recipe = attached.pipeline.recipe
    assert (recipe.budget.keep, recipe.positions) == (3, "compact")
    assert repr(attached).startswith("<headwise on this model: fastv:layer=2, ")
    assert " visual tokens per layer, KV entries by streaming:sinks=2,window=6" in repr(attached)
    with headwise.attach(model, Recipe.of()) as attached:
        assert repr(attached) == "<headwise on this model: nothing is thrown away>"


@pytest.mark.parametrize(
    ("given", "settings", "said"),
    [
        ((Recipe.of(WINDOW), "sparsity"), {}, "a Recipe says everything; leave out 'sparsity', or give strategy texts"),
        ((Recipe.of(WINDOW),), {"keep": 3}, "a Recipe says everything; leave out keep=, or give strategy texts alone"),
        ((WINDOW, "window:window=3"), {}, "are both kv_eviction strategies"),
        (("fastw",), {"keep": 3}, "unknown strategy 'fastw'; did you mean fastv"),
        ((WINDOW,), {"position": "keep"}, "there is no setting 'position'; did you mean positions"),
        ((None,), {}, "wanted a headwise.Recipe or strategy texts, got None"),
    ],
)
@pytest.mark.parametrize("enter", [headwise.attach, headwise.cache])
def test_what_is_no_recipe_is_refused_before_the_model_is_touched(enter, given, settings, said):
    model = tiny("llama")
    before = dict(model.__dict__)
    with pytest.raises(headwise.HeadwiseError, match=said), ExitStack() as stack:
        stack.enter_context(enter(model, *given, **settings))
    assert model.__dict__ == before
