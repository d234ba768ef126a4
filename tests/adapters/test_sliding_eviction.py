"""Windows of a plan on models whose layers have a sliding window of their own, in all layers or in some."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.decoders import read_in_pieces, tiny, tokens
from tests.reference.masked_decoder import masked_logits, windows_seen
from tests.reference.streaming_llm import Stream
from transformers.cache_utils import DynamicCache

import headwise
from headwise import Geometry, WindowPlan
from headwise.attachment import adapter_for
from headwise.eviction import UNBOUNDED, clamp_to_sliding_window, everything
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise_adapters.cache.ragged_cache import kv_bytes
from headwise_adapters.eviction.streaming import read_plan

NO_STRATEGY = Pipeline(Recipe(strategies={}))
TIGHT = {"rtol": 1e-5, "atol": 1e-5}
OWN = {"sliding": (19, 19, 19), "mixed": (None, 19, 19), "mixed_qwen2": (None, 19, 19)}


@pytest.fixture(params=["sliding", "mixed"])
def family(request):
    return request.param


def ragged(model, seed=0):
    """Sinks and windows that differ between heads and layers; some fit into the model's window, some do not."""
    geometry, rng = adapter_for(model).geometry, np.random.default_rng(seed)
    shape = (geometry.layers, geometry.kv_heads)
    return WindowPlan(geometry=geometry, sinks=rng.integers(0, 6, shape), windows=rng.choice([1, 5, 9, 17, 30], shape))


def seen_by(model, plan, length):
    """Bool (heads, n, n) per layer: what the plan shows, less what the model's own window hides."""
    shared = model.config.num_attention_heads // plan.geometry.kv_heads
    back = torch.arange(length)[:, None] - torch.arange(length)
    shown = windows_seen(plan.sinks, plan.windows, length, shared)
    own = plan.geometry.sliding
    return [seen & (back < (reach or length)) for seen, reach in zip(shown, own, strict=True)]


def cache_of(model, plan):
    return adapter_for(model).cache(NO_STRATEGY, clamp_to_sliding_window(plan))


def read(model, plan, ids, *sizes):
    """Logits (n, vocabulary) and the cache."""
    cache = cache_of(model, plan)
    return read_in_pieces(model, cache, ids, *sizes), cache


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("sizes", [(1,), (60,), (7,), (25, 1), (18, 3)])
def test_sinks_leave_with_the_models_own_window(family, attention, sizes):
    model, ids = tiny(family, attention), tokens(60)
    plan = ragged(model)
    with torch.no_grad():
        expected = masked_logits(model, ids, seen_by(model, plan, 60))
    found, cache = read(model, plan, ids, *sizes)
    torch.testing.assert_close(found, expected, **TIGHT)
    assert cache.entries().tolist() == clamp_to_sliding_window(plan).visible(60).tolist()
    assert kv_bytes(cache) == clamp_to_sliding_window(plan).kv_bytes(60, itemsize=4)


@settings(deadline=None, max_examples=8, derandomize=True)
@given(
    sinks=st.integers(0, 22), window=st.integers(1, 25), sizes=st.lists(st.integers(1, 14), min_size=1, max_size=5)
)  # fmt: skip
def test_any_chunks_read_as_one(sinks, window, sizes):
    model, ids = tiny("sliding"), tokens(sum(sizes))
    plan = WindowPlan.uniform(adapter_for(model).geometry, sinks, window)
    with torch.no_grad():
        expected = masked_logits(model, ids, seen_by(model, plan, len(ids)))
    found, cache = read(model, plan, ids, *sizes)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert kv_bytes(cache) == clamp_to_sliding_window(plan).kv_bytes(len(ids), itemsize=4)


def test_bytes_are_the_plans_at_every_step(family):
    model, ids = tiny(family), tokens(45)
    plan = clamp_to_sliding_window(ragged(model, seed=1))
    cache = cache_of(model, plan)
    with torch.no_grad():
        for read_so_far, token in enumerate(ids, 1):
            model(input_ids=token[None, None], past_key_values=cache)
            assert kv_bytes(cache) == plan.kv_bytes(read_so_far, itemsize=4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["original", "relative"])
def test_padded_rows_equal_single_rows(family, positions, side):
    model, texts = tiny(family), [tokens(41, 1), tokens(17, 2), tokens(23, 3)]
    plan = WindowPlan.uniform(adapter_for(model).geometry, 3, 9, positions)
    ids, mask = torch.zeros(3, 41, dtype=torch.long), torch.zeros(3, 41, dtype=torch.long)
    for row, text in enumerate(texts):
        where = slice(41 - len(text), 41) if side == "left" else slice(0, len(text))
        ids[row, where], mask[row, where] = text, 1
    said, cache = torch.stack([tokens(12, 4 + row) for row in range(3)]), cache_of(model, plan)
    with torch.no_grad():
        places = (mask.cumsum(-1) - 1).clamp_min(0)
        found = [model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache).logits]
        for step in range(12):
            mask = torch.cat([mask, torch.ones(3, 1, dtype=torch.long)], dim=1)
            place = mask.sum(-1, keepdim=True) - 1
            one = said[:, step : step + 1]
            step_logits = model(input_ids=one, attention_mask=mask, position_ids=place, past_key_values=cache).logits
            found.append(step_logits)
    for row, text in enumerate(texts):
        expected, _ = read(model, plan, torch.cat([text, said[row]]), 100)
        prompt = found[0][row][mask[row, :41].bool()]
        torch.testing.assert_close(
            torch.cat([prompt, *(logits[row] for logits in found[1:])]), expected, rtol=1e-4, atol=2e-5
        )


def test_beams_and_copies_of_rows_at_different_places(family):
    model = tiny(family)
    model.generation_config.eos_token_id = None
    texts, recipe = [tokens(21, 1), tokens(14, 2)], Recipe.of("streaming:sinks=3,window=9,positions=original")
    ids, mask = torch.zeros(2, 21, dtype=torch.long), torch.ones(2, 21, dtype=torch.long)
    ids[0], ids[1, 7:], mask[1, :7] = texts[0], texts[1], 0
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False}
    with headwise.attach(model, recipe):
        together = model.generate(input_ids=ids, attention_mask=mask, **options)[:, 21:]
        alone = [model.generate(input_ids=text[None], **options)[0, len(text) :] for text in texts]
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(input_ids=texts[0][None, :18], past_key_values=cache)
            twin = copy.deepcopy(cache)
            there = model(input_ids=texts[0][None, 18:], past_key_values=cache).logits
            model(input_ids=texts[1][None], past_key_values=twin)
            again = model(input_ids=tokens(5, 9)[None], past_key_values=cache).logits
    assert torch.equal(together, torch.stack(alone))
    expected, _ = read(model, clamp_to_sliding_window(WindowPlan.uniform(adapter_for(model).geometry, 3, 9)),
                       torch.cat([texts[0], tokens(5, 9)]), 100)  # fmt: skip
    torch.testing.assert_close(torch.cat([there[0], again[0]]), expected[18:], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("sinks", "window"), [(2, 9), (4, 15), (4, 400), (30, 6)])
def test_re_positioned_sinks_stand_within_the_models_window(sinks, window):
    model, ids = tiny("sliding"), tokens(50)
    plan = clamp_to_sliding_window(WindowPlan.uniform(adapter_for(model).geometry, sinks, window, "relative"))
    held, recent = int(plan.sinks.max()), int(plan.windows.max())
    assert held + recent == min(19, sinks + window)
    plain = tiny("mistral")  # the same weights without a window: what the paper's stream sees is within it anyway
    with torch.no_grad():
        expected = Stream(plain, held, recent - 1).read(ids)
    for sizes in ((50,), (1,), (13,)):
        torch.testing.assert_close(read(model, plan, ids, *sizes)[0], expected, rtol=1e-4, atol=2e-5)


def test_context_and_bytes_of_a_text_are_those_that_were_seen(family):
    model, plan, ids = tiny(family), ragged(tiny(family)), tokens(60)
    reading = read_plan(model, NO_STRATEGY, plan, ids, chunk=11)
    seen = [layer[::3].sum(-1).double() for layer in seen_by(model, plan, 60)]  # a head of each KV head
    torch.testing.assert_close(reading.visible, torch.cat(seen).mean(0))
    assert reading.kv_bytes == clamp_to_sliding_window(plan).kv_bytes(60, itemsize=4)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    seen=st.integers(1, 60), sinks=st.integers(0, 25), window=st.integers(1, 30) | st.just(UNBOUNDED),
    own=st.integers(1, 30),
)  # fmt: skip
def test_visible_entries_are_counted_one_by_one(seen, sinks, window, own):
    geometry = Geometry(name="one", layers=2, heads=1, kv_heads=1, head_dim=4, hidden=4, intermediate=4,
                        visual_tokens=0, sliding=(own, None))  # fmt: skip
    plan = clamp_to_sliding_window(WindowPlan.uniform(geometry, sinks, window))
    asking = range(seen)
    shown = [token for token in asking if token < sinks or seen - 1 - token < window]
    assert plan.visible(seen).tolist() == [[sum(seen - 1 - token < own for token in shown)], [len(shown)]]
    moved = clamp_to_sliding_window(WindowPlan.uniform(geometry, sinks, window, "relative"))
    room = moved.sinks[0, 0] + moved.windows[0, 0]
    assert room == min(own, sinks + window)
    assert moved.windows.min() >= 1
    assert moved.visible(10**6)[0, 0] == room
    assert moved.sinks[1, 0] == sinks
    assert moved.windows[1, 0] == window


def test_windows_beyond_the_models_own_keep_everything(family):
    geometry = adapter_for(tiny(family)).geometry
    assert clamp_to_sliding_window(everything(geometry)).keeps_everything
    assert clamp_to_sliding_window(WindowPlan.uniform(geometry, 3, 400)).keeps_everything == (family == "sliding")
    assert not clamp_to_sliding_window(WindowPlan.uniform(geometry, 3, 18)).keeps_everything
    assert not clamp_to_sliding_window(WindowPlan.uniform(geometry, 3, 400, "relative")).keeps_everything


@pytest.mark.parametrize("seed", range(4))
def test_dealt_windows_stay_among_layers_of_the_same_window(seed):
    model = tiny("mixed")
    recipe = Recipe.of(f"permuted:of=[streaming:sinks=0,window=40,positions=original],seed={seed}")
    with headwise.attach(model, recipe) as attached:
        assert attached.eviction.windows[:, 0].tolist() == [40, 19, 19]
