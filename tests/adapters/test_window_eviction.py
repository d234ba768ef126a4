"""Window plans: against the stock model with masked keys, against StreamingLLM written from the paper, and bytes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.decoders import read_in_pieces, tiny, tokens
from tests.reference.masked_decoder import masked_logits, windows_seen
from tests.reference.streaming_llm import Stream, turned
from transformers.cache_utils import DynamicCache, StaticCache

import headwise
from headwise.attachment import adapter_for
from headwise.errors import BudgetError, DataError, ModelError
from headwise.eviction import UNBOUNDED, WindowPlan, everything
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise_adapters.attention.rotary import Rotary
from headwise_adapters.cache.ragged_cache import kv_bytes
from headwise_adapters.eviction import streaming
from headwise_adapters.eviction.streaming import read_plan

NO_STRATEGY = Pipeline(Recipe(strategies={}))
TIGHT = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=["eager", "sdpa"])
def attention(request):
    return request.param


@pytest.fixture(params=["neox", "llama"])
def model(request, attention):
    return tiny(request.param, attention)


def ragged(model, positions="original", seed=0):
    """Sinks and windows that differ between heads and layers, some of them the same."""
    geometry, rng = adapter_for(model).geometry, np.random.default_rng(seed)
    shape = (geometry.layers, geometry.kv_heads)
    return WindowPlan(
        geometry=geometry,
        sinks=rng.integers(0, 5, shape),
        windows=rng.choice([1, 5, 9, 30], shape),
        positions=positions,
    )


def cache_of(model, plan):
    return adapter_for(model).cache(NO_STRATEGY, plan)


def read(model, plan, ids, *sizes):
    return read_in_pieces(model, cache_of(model, plan), ids, *sizes)


@pytest.mark.parametrize("sizes", [(1,), (60,), (7,), (25, 1)])
def test_every_way_of_reading_equals_the_stock_model_with_masked_keys(model, sizes):
    plan, ids = ragged(model), tokens(60)
    shared = plan.geometry.heads // plan.geometry.kv_heads
    with torch.no_grad():
        expected = masked_logits(model, ids, windows_seen(plan.sinks, plan.windows, 60, shared))
    torch.testing.assert_close(read(model, plan, ids, *sizes), expected, **TIGHT)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_other_families_equal_the_stock_model_with_masked_keys(family, attention):
    model, ids = tiny(family, attention), tokens(50)
    plan = ragged(model)
    with torch.no_grad():
        expected = masked_logits(model, ids, windows_seen(plan.sinks, plan.windows, 50, 3))
    torch.testing.assert_close(read(model, plan, ids, 20, 1), expected, **TIGHT)


@pytest.mark.parametrize(("sinks", "recent"), [(4, 12), (0, 12), (1, 1), (3, 200)])
def test_relative_positions_equal_streaming_llm_written_from_the_paper(model, sinks, recent):
    ids = tokens(60)
    plan = WindowPlan.uniform(
        adapter_for(model).geometry, sinks, recent + 1, "relative"
    )  # the paper's query comes on top
    with torch.no_grad():
        expected = Stream(model, sinks, recent).read(ids)
    for sizes in ((1,), (60,), (11,), (40, 1)):
        torch.testing.assert_close(read(model, plan, ids, *sizes), expected, rtol=1e-4, atol=2e-5)


def test_original_positions_differ_from_streaming_llm_where_it_has_sinks(model):
    ids = tokens(60)
    with torch.no_grad():
        expected = Stream(model, 4, 12).read(ids)
    found = read(model, WindowPlan.uniform(adapter_for(model).geometry, 4, 13, "original"), ids, 60)
    torch.testing.assert_close(found[:17], expected[:17], **TIGHT)
    assert (found[17:] - expected[17:]).abs().max() > 1e-3


@pytest.mark.parametrize("positions", ["original", "relative"])
def test_one_pass_chunks_and_token_by_token_give_the_same_nll_on_ragged_heads(model, positions):
    plan, ids = ragged(model, positions, seed=3), tokens(160)
    slow = read_plan(model, NO_STRATEGY, plan, ids, chunk=1)
    for chunk in (160, 37, 128):
        found = read_plan(model, NO_STRATEGY, plan, ids, chunk=chunk)
        torch.testing.assert_close(found.nll, slow.nll, **TIGHT)
        assert torch.equal(slow.visible, found.visible)
        assert slow.kv_bytes == found.kv_bytes == plan.kv_bytes(160, itemsize=4)


def test_long_chunks_are_attended_in_blocks_with_the_same_result(model):
    plan, ids = WindowPlan.uniform(adapter_for(model).geometry, 3, 140, "relative"), tokens(1300)
    torch.testing.assert_close(read(model, plan, ids, 1300), read(model, plan, ids, 100), rtol=1e-4, atol=1e-4)


def test_a_stream_whose_position_ids_start_anew_reads_the_same(model, monkeypatch):
    plan, ids = ragged(model, "relative", seed=3), tokens(160)
    expected = read_plan(model, NO_STRATEGY, plan, ids, chunk=160)
    monkeypatch.setattr(streaming, "REBASE", 20)
    for chunk in (1, 16):
        found = read_plan(model, NO_STRATEGY, plan, ids, chunk=chunk)
        torch.testing.assert_close(found.nll, expected.nll, rtol=1e-5, atol=2e-5)


def test_visible_entries_are_counted_for_every_token(model):
    plan, ids = ragged(model), tokens(45)
    expected = [plan.context(seen) for seen in range(1, 46)]
    assert expected == pytest.approx(read_plan(model, NO_STRATEGY, plan, ids, chunk=13).visible.tolist())


def test_windows_longer_than_the_text_equal_the_full_cache(model):
    ids = tokens(80)
    with torch.no_grad():
        expected = model(input_ids=ids[None]).logits[0]
    for plan in (
        everything(adapter_for(model).geometry),
        WindowPlan.uniform(adapter_for(model).geometry, 4, 80, "relative"),
    ):
        torch.testing.assert_close(read(model, plan, ids, 31, 1), expected, **TIGHT)


@pytest.mark.parametrize("positions", ["original", "relative"])
def test_bytes_are_the_plans_at_every_step_of_a_long_decode(model, positions):
    plan, ids = ragged(model, positions), tokens(70)
    cache = cache_of(model, plan)
    with torch.no_grad():
        model(input_ids=ids[None, :3].expand(2, -1), past_key_values=cache)
        for seen in range(4, 71):
            model(input_ids=ids[None, seen - 1 : seen].expand(2, -1), past_key_values=cache)
            assert plan.kv_bytes(seen, batch=2, itemsize=4) == cache.kv_bytes()
            assert np.array_equal(plan.visible(seen), cache.entries())
            held = [tensor for layer in cache.layers for tensor in layer.held()]
            assert sum(tensor.untyped_storage().nbytes() for tensor in held) == cache.kv_bytes()
    assert cache.get_seq_length() == 70


def test_a_prefill_leaves_no_slack_behind(model):
    plan = ragged(model)
    for length in (1, 2, 6, 40, 200):
        cache = cache_of(model, plan)
        with torch.no_grad():
            model(input_ids=tokens(length)[None], past_key_values=cache)
        assert plan.kv_bytes(length, itemsize=4) == cache.kv_bytes()


@pytest.mark.parametrize("positions", ["original", "relative"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_single_rows(model, positions, side):
    plan = ragged(model, positions)
    rows = [tokens(40, 1), tokens(23, 2), tokens(3, 3)]
    width = 40
    ids, mask = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    for i, row in enumerate(rows):
        span = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, span], mask[i, span] = row, 1
    places = (mask.cumsum(dim=1) - 1).clamp_min(0)
    cache, nexts = cache_of(model, plan), tokens(12, 9)
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache).logits
        later = []
        for token in nexts:
            mask = torch.cat([mask, torch.ones(3, 1, dtype=torch.long)], dim=1)
            places = mask.sum(dim=1, keepdim=True) - 1
            step = token.expand(3, 1)
            later.append(model(input_ids=step, attention_mask=mask, position_ids=places, past_key_values=cache).logits)
    later = torch.cat(later, dim=1)
    for i, row in enumerate(rows):
        expected = read(model, plan, torch.cat([row, nexts]), len(row), 1)
        own = found[i, width - len(row) :] if side == "left" else found[i, : len(row)]
        torch.testing.assert_close(own, expected[: len(row)], **TIGHT)
        torch.testing.assert_close(later[i], expected[len(row) :], **TIGHT)


def test_a_cache_filled_in_inference_mode_goes_on_outside_of_it_and_keeps_no_graph(model):
    plan, ids = ragged(model), tokens(60)
    cache = cache_of(model, plan)
    with torch.inference_mode():
        model(input_ids=ids[None, :20], past_key_values=cache)
    found = torch.cat([model(input_ids=token.view(1, 1), past_key_values=cache).logits[0] for token in ids[20:]])
    torch.testing.assert_close(found, read(model, plan, ids, 20, 1)[20:], **TIGHT)
    assert not any(tensor.requires_grad for layer in cache.layers for tensor in layer.held())


def recipe(text="streaming:sinks=2,window=10"):
    return Recipe.of(text)


@pytest.mark.parametrize("beams", [1, 3])
def test_generating_for_a_padded_batch_equals_generating_row_by_row(model, beams):
    rows, steps = [tokens(30, 1), tokens(17, 2)], {"max_new_tokens": 15, "do_sample": False, "num_beams": beams}
    ids, mask = torch.zeros(2, 30, dtype=torch.long), torch.zeros(2, 30, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, 30 - len(row) :], mask[i, 30 - len(row) :] = row, 1
    with headwise.attach(model, recipe()):
        both = model.generate(ids, attention_mask=mask, **steps)
        for i, row in enumerate(rows):
            alone = model.generate(row[None], attention_mask=torch.ones(1, len(row), dtype=torch.long), **steps)
            assert torch.equal(alone[0, len(row) :], both[i, 30:][: alone.shape[1] - len(row)])


def test_generating_equals_reading_everything_anew_for_each_token(model):
    ids, mask = tokens(25)[None], torch.ones(1, 25, dtype=torch.long)
    with headwise.attach(model, recipe()):
        cached = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
        anew = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, use_cache=False)
    assert torch.equal(anew, cached)
    stock = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
    assert not torch.equal(stock, cached)


def test_a_cache_serves_many_turns_without_a_context(model):
    cache, ids = headwise.cache(model, recipe()), tokens(50)
    steps = {"do_sample": False, "max_new_tokens": 5, "past_key_values": cache}
    first = model.generate(ids[None, :20], attention_mask=torch.ones(1, 20, dtype=torch.long), **steps)
    second = torch.cat([first, ids[None, 20:33]], dim=1)
    found = model.generate(second, attention_mask=torch.ones_like(second), **steps)
    with headwise.attach(model, recipe()):
        expected = model.generate(second, attention_mask=torch.ones_like(second), do_sample=False, max_new_tokens=5)
    assert torch.equal(expected, found)
    assert np.array_equal(np.full((3, adapter_for(model).geometry.kv_heads), 12), cache.entries())


def test_the_callers_own_dynamic_cache_is_made_to_evict(model):
    cache = DynamicCache(config=model.config)
    with headwise.attach(model, recipe()) as attached, torch.no_grad():
        model(input_ids=tokens(30)[None], past_key_values=cache)
        model(input_ids=tokens(3)[None], past_key_values=cache)
    assert attached.eviction.kv_bytes(33, itemsize=4) == kv_bytes(cache)
    assert cache.get_seq_length() == 33


def test_a_copied_cache_goes_its_own_way(model):
    cache, ids = headwise.cache(model, recipe()), tokens(40)
    with torch.no_grad():
        model(input_ids=ids[None, :25], past_key_values=cache)
        twin = copy.deepcopy(cache)
        model(input_ids=tokens(9, 7)[None], past_key_values=cache)
        del cache
        found = model(input_ids=ids[None, 25:], past_key_values=twin).logits[0]
    expected = read(model, headwise.attachment.Pipeline(recipe()).eviction(adapter_for(model).geometry), ids, 25, 15)
    torch.testing.assert_close(found, expected[25:], **TIGHT)


def test_chunked_prefill_in_generate_equals_one_prefill(model):
    ids = tokens(45)[None]
    steps = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 6}
    with headwise.attach(model, recipe()):
        assert torch.equal(model.generate(ids, **steps), model.generate(ids, prefill_chunk_size=10, **steps))


def test_a_model_is_as_it_was_after_the_context_and_after_an_exception(model):
    ids = tokens(30)[None]
    before = [module.config for module in model.modules() if hasattr(module, "config")]
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        with headwise.attach(model, recipe()):
            assert not torch.equal(expected, model(input_ids=ids).logits)
        with pytest.raises(IndexError), headwise.attach(model, recipe()):
            model(input_ids=ids + 1000)
        cache = headwise.cache(model, recipe())
        assert torch.equal(expected, model(input_ids=ids).logits)  # a cache that lives disturbs nobody
        del cache
        assert torch.equal(expected, model(input_ids=ids).logits)
    after = [module.config for module in model.modules() if hasattr(module, "config")]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert not [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    assert not [name for module in model.modules() for name in vars(module) if "headwise" in name]


def test_a_sliding_window_of_the_model_bounds_every_window(attention):
    model, ids = tiny("sliding", attention), tokens(60)
    with torch.no_grad():
        expected = model(input_ids=ids[None]).logits[0]
        cache = cache_of(model, everything(adapter_for(model).geometry))
        found = torch.cat([model(input_ids=part[None], past_key_values=cache).logits[0] for part in ids.split(13)])
    torch.testing.assert_close(found, expected, **TIGHT)
    assert cache.entries().max() == 19
    reading = read_plan(model, NO_STRATEGY, everything(adapter_for(model).geometry), ids)
    assert reading.visible.max() == 19
    with headwise.attach(model, Recipe.of("streaming:sinks=2,window=50")) as attached:
        assert attached.eviction.context() == 19
    with headwise.attach(model, Recipe.of("streaming:sinks=2,window=9,positions=original")) as attached:
        assert [attached.eviction.context(seen) for seen in (11, 19, 20, 21, 10**6)] == [11, 11, 10, 9, 9]


def test_half_precision_follows_single_precision(model):
    plan, ids = ragged(model, "relative"), tokens(60)
    expected = read(model, plan, ids, 60)
    found = read(model.to(torch.bfloat16), plan, ids, 20, 1)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    sinks=st.integers(0, 6), window=st.integers(1, 20), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8)
)  # fmt: skip
def test_any_chunks_read_alike(sinks, window, sizes):
    model = tiny("neox")
    ids = tokens(sum(sizes))
    plan = WindowPlan.uniform(adapter_for(model).geometry, sinks, window, "relative")
    torch.testing.assert_close(read(model, plan, ids, *sizes), read(model, plan, ids, len(ids)), rtol=1e-4, atol=2e-5)


def test_rotations_are_those_of_the_model_partial_ones_included(model):
    rotary = Rotary(adapter_for(model).decoder.text, "full_attention")
    states = torch.randn(2, 5, adapter_for(model).geometry.head_dim)
    config = model.config
    share = config.rope_parameters.get("partial_rotary_factor", 1.0)
    places = torch.tensor([0, 3, -7, 1000, 12])
    expected = turned(states, places, config.rope_parameters["rope_theta"], int(states.shape[-1] * share))
    torch.testing.assert_close(rotary.rotate(states, places), expected, **TIGHT)
    torch.testing.assert_close(rotary.by(states, -7)[:, 2], expected[:, 2], **TIGHT)


def filled(model):
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=tokens(4)[None], past_key_values=cache)
    return cache


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: StaticCache(config=model.config, max_cache_len=64), "a StaticCache cannot evict"),
        (filled, "this cache holds 4 tokens that were read before the recipe was attached"),
    ],
)
def test_a_cache_that_cannot_evict_is_refused_in_a_sentence(model, make, message):
    cache = make(model)
    with headwise.attach(model, recipe()), pytest.raises(ModelError, match=message):
        model(input_ids=tokens(5)[None], past_key_values=cache)


def test_what_cannot_be_done_is_said_in_a_sentence(model):
    cache = headwise.cache(model, recipe())
    with torch.no_grad():
        model(input_ids=tokens(4)[None], past_key_values=cache)
        with pytest.raises(ModelError, match="a cache of 1 rows was given 2"):
            model(input_ids=tokens(4)[None].expand(2, -1), past_key_values=cache)
        with pytest.raises(ModelError, match="an attention mask with 4 axes"):
            model(input_ids=tokens(4)[None], attention_mask=torch.ones(1, 1, 4, 8), past_key_values=cache)
        kv_heads = adapter_for(model).geometry.kv_heads
        key = torch.zeros(1, kv_heads, 1, 8)
        headwise_layer = headwise.cache(model, recipe()).layers[0]
        with pytest.raises(ModelError, match="whose attention headwise did not patch"):
            headwise_layer.update(key, key)
    with pytest.raises(ModelError, match="cannot be rolled back"):
        cache.crop(-1)
    with pytest.raises(DataError, match="at least two tokens"):
        read_plan(model, NO_STRATEGY, ragged(model), tokens(1))
    with pytest.raises(BudgetError, match="a chunk of 0 tokens"):
        read_plan(model, NO_STRATEGY, ragged(model), tokens(9), chunk=0)


def test_an_unbounded_window_keeps_everything():
    assert everything(adapter_for(tiny("neox")).geometry).keeps_everything
    assert UNBOUNDED > 10**12
