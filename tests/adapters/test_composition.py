"""Visual pruning and KV eviction in one recipe, on LLaVA."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.adapters.decoders import tiny
from transformers.cache_utils import DynamicCache

import headwise
from headwise.attachment import adapter_for
from headwise.errors import ModelError
from headwise.recipe import Recipe
from headwise_adapters.cache.ragged_cache import kv_bytes

TIGHT = {"rtol": 1e-5, "atol": 3e-5}  # logits are in the tens
PRUNING = ("fastv:layer=2", "last_token")
HUGE = ("streaming:sinks=4,window=500", "snapkv:budget=400")


@torch.no_grad()
def run(model, recipe, inputs, pictures, steps=0):
    """Logits of a prefill and of some greedy steps, and the cache."""
    cache = DynamicCache(config=model.config.text_config)
    with headwise.attach(model, recipe):
        mask = inputs["attention_mask"]
        places = (mask.cumsum(dim=1) - 1).clamp_min(0)
        out = model(**inputs, position_ids=places, pixel_values=pictures, past_key_values=cache)
        logits = [out.logits[:, -1:]]
        for _ in range(steps):
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            step = {"attention_mask": mask, "position_ids": mask.sum(dim=1, keepdim=True) - 1}
            following = logits[-1].argmax(dim=-1)
            logits.append(model(input_ids=following, **step, past_key_values=cache).logits)
    return torch.cat(logits, dim=1), cache


def batch(tools):
    rows = [tools["prompt"](3, "image", 8), tools["prompt"](2, "image", 4, seed=1)]
    return tools["padded"](rows, "left"), tools["pixels"](2)


@pytest.mark.parametrize("text", HUGE)
def test_pruning_with_an_eviction_that_evicts_nothing_equals_pruning_alone(model, tools, text):
    inputs, pictures = batch(tools)
    alone, _ = run(model, Recipe.of(*PRUNING, keep=5), inputs, pictures, steps=4)
    both, _ = run(model, Recipe.of(*PRUNING, text, keep=5), inputs, pictures, steps=4)
    torch.testing.assert_close(both, alone, **TIGHT)


@pytest.mark.parametrize("text", ["streaming:sinks=2,window=9", "streaming:sinks=2,window=9,positions=original",
                                  "snapkv:budget=9,every=1,queries=8", "adakv:of=[h2o:budget=9,every=2]"])  # fmt: skip
def test_pruned_and_evicted_rows_of_a_batch_equal_single_rows(model, tools, text):
    inputs, pictures = batch(tools)
    recipe = Recipe.of(*PRUNING, text, keep=5)
    both, _ = run(model, recipe, inputs, pictures, steps=5)
    for row in range(2):
        real = inputs["attention_mask"][row].bool()
        single = {name: states[row : row + 1, real] for name, states in inputs.items()}
        alone, _ = run(model, recipe, single, pictures[row : row + 1], steps=5)
        torch.testing.assert_close(both[row : row + 1], alone, **TIGHT)


def test_layers_behind_a_stage_hold_what_is_left_of_the_pruned_prompt(model, tools):
    ids = tools["prompt"](3, "image", 8)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    _, cache = run(
        model, Recipe.of(*PRUNING, "streaming:sinks=4,window=14", keep=5), inputs, tools["pixels"](1), steps=0
    )
    whole, pruned = ids.shape[1], ids.shape[1] - 16 + 5
    assert [min(18, whole)] * 2 + [min(18, pruned)] * 2 == [layer.entries()[0] for layer in cache.layers]
    geometry = adapter_for(model).geometry
    entry = 2 * geometry.head_dim * 4 * geometry.kv_heads
    assert kv_bytes(cache) == (2 * 18 + 2 * 17) * entry


def test_eviction_alone_leaves_the_vision_tower_and_its_features_untouched(model, tools):
    ids, pictures = tools["prompt"](3, "image", 8), tools["pixels"](1)
    before = model.model.vision_tower.config._attn_implementation
    seen = []
    handle = model.model.multi_modal_projector.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        stock = model(input_ids=ids, pixel_values=pictures).logits
        with headwise.attach(model, Recipe.of("streaming:sinks=1,window=4")):
            evicted = model(input_ids=ids, pixel_values=pictures).logits
            assert before == model.model.vision_tower.config._attn_implementation
            towers = [module for module in model.model.vision_tower.modules() if hasattr(module, "_headwise_attention")]
    handle.remove()
    assert not towers
    assert torch.equal(*seen)
    torch.testing.assert_close(evicted[:, :5], stock[:, :5], **TIGHT)
    assert (evicted[:, -1] - stock[:, -1]).abs().max() > 1e-3


def test_generating_with_both_equals_generating_without_a_cache_for_windows(model, tools):
    ids, pictures = tools["prompt"](3, "image", 8), tools["pixels"](1)
    steps = {"attention_mask": torch.ones_like(ids), "pixel_values": pictures, "max_new_tokens": 8, "do_sample": False}
    with headwise.attach(model, Recipe.of(*PRUNING, "streaming:sinks=2,window=30", keep=5)):
        assert torch.equal(model.generate(ids, **steps, num_beams=2), model.generate(ids, **steps, num_beams=2))
        cached = model.generate(ids, **steps)
    with headwise.attach(model, Recipe.of(*PRUNING, keep=5)):
        full = model.generate(ids, **steps)
    assert torch.equal(full[:, : ids.shape[1] + 3], cached[:, : ids.shape[1] + 3])


def test_a_cache_alone_serves_llava_and_a_pruning_recipe_is_refused(model, tools):
    ids, pictures = tools["prompt"](3, "image", 8), tools["pixels"](1)
    cache = headwise.cache(model, Recipe.of("snapkv:budget=6,queries=4"))
    with torch.no_grad():
        model(input_ids=ids, pixel_values=pictures, past_key_values=cache)
    assert np.array_equal(np.full((4, 2), 6), cache.entries())
    with pytest.raises(ModelError, match="prunes no visual token"):
        headwise.cache(model, Recipe.of(*PRUNING, "snapkv", keep=5))


def test_pruning_a_language_model_is_refused_in_a_sentence():
    attached = headwise.attach(tiny("neox"), Recipe.of(*PRUNING, keep=5))
    with pytest.raises(headwise.HeadwiseError, match="visual tokens"):
        attached.__enter__()
