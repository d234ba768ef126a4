"""Attaching to LLaVA: what is found, what is refused, and that nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, StaticCache

import headwise
from headwise.attachment import adapter_for
from headwise.recipe import Recipe


def fingerprint(model) -> dict:
    """Everything attaching could leave behind: hooks, attributes, configs and attention implementations."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
             "_forward_hooks_always_called")  # fmt: skip
    return {
        name: (
            type(module),
            tuple(len(getattr(module, hook)) for hook in hooks),
            sorted(vars(module)),
            id(getattr(module, "config", None)),
            getattr(getattr(module, "config", None), "_attn_implementation", None),
        )
        for name, module in model.named_modules()
    }


@pytest.mark.parametrize("text", ["fastv:layer=2", "token_pruning=random:layer=0", "token_pruning=none"])
def test_model_is_as_before(model, tools, text):
    keep = None if text == "token_pruning=none" else 4
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    model(input_ids=ids, pixel_values=images)  # transformers installs its own output recorders on the first forward
    before = fingerprint(model)
    with torch.no_grad(), headwise.attach(model, Recipe.of(text, keep=keep)):
        model.generate(input_ids=ids, pixel_values=images, attention_mask=torch.ones_like(ids), max_new_tokens=3)
    assert before == fingerprint(model)


def test_model_is_as_before_after_an_exception(model, tools):
    model(input_ids=tools["prompt"](3, "image", 5), pixel_values=tools["pixels"](1))
    before = fingerprint(model)
    with pytest.raises(ValueError, match="do not match"), headwise.attach(model, Recipe.of("fastv", keep=4)):
        model(input_ids=tools["prompt"](3, "image", 5), pixel_values=tools["pixels"](2))
    assert before == fingerprint(model)


def test_vision_tower_keeps_its_attention(model):
    tower = model.model.vision_tower
    before = [m.config._attn_implementation for m in tower.modules() if hasattr(m, "config")]
    with headwise.attach(model, Recipe.of("fastv", keep=4)):
        inside = [m.config._attn_implementation for m in tower.modules() if hasattr(m, "config")]
        assert model.model.language_model.config._attn_implementation == model.config.text_config._attn_implementation
    assert before == inside


def test_geometry_counts(model):
    geometry = adapter_for(model).geometry
    assert (geometry.layers, geometry.heads, geometry.kv_heads, geometry.visual_tokens) == (4, 4, 2, 16)


def test_foreign_model_is_refused_with_the_families_there_are():
    config = GPTNeoXConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=8
    )
    config.model_type = "unheard_of"
    model = GPTNeoXForCausalLM(config)
    with (
        pytest.raises(headwise.ModelError, match=r"no adapter for GPTNeoXForCausalLM .*supported: .*llava"),
        headwise.attach(model, Recipe.of("fastv", keep=4)),
    ):
        pass


def test_fixed_length_cache_is_refused(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    cache = StaticCache(config=model.config.text_config, max_cache_len=64)
    with (
        torch.no_grad(),
        headwise.attach(model, Recipe.of("fastv", keep=4)),
        pytest.raises(headwise.ModelError, match="StaticCache has a fixed length"),
    ):
        model(input_ids=ids, pixel_values=images, past_key_values=cache)


def test_infeasible_budget_names_the_smallest(model):
    with (
        pytest.raises(headwise.BudgetError, match=r"smallest feasible budget is tokens=8\.5"),
        headwise.attach(model, Recipe.of("fastv:layer=2", tokens=8)),
    ):
        pass
