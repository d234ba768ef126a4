"""The edges of caches that evict: what the model's own window hides, data types, single tokens, what others read."""

from __future__ import annotations

import copy
import io
import itertools

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.decoders import VOCAB, tiny, tokens
from tests.situations import oracle
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import headwise
from headwise.attachment import adapter_for
from headwise.errors import ModelError, StrategyError
from headwise.eviction import ScorePlan, WindowPlan
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.retention import retained
from headwise_adapters.attention.rotary import Rotary
from headwise_adapters.cache.ragged_cache import New
from headwise_adapters.cache.score_layer import ScoreLayer
from headwise_adapters.cache.window_layer import WindowLayer
from headwise_adapters.eviction import streaming
from headwise_adapters.eviction.streaming import read_text

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SLIDING = 19  # of the model "sliding"


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def by_chunks(model, text, ids, sizes):
    """Logits of ids (n,) read in chunks, and the cache."""
    cache = headwise.cache(model, Recipe.of(text))
    parts = [model(input_ids=part[None], past_key_values=cache).logits[0] for part in ids.split(sizes)]
    return torch.cat(parts), cache


def different(length):
    """Token ids (n,), no two alike: no two keys of the first layer are as long as each other."""
    return 3 + torch.randperm(VOCAB - 3, generator=torch.Generator().manual_seed(0))[:length]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("budget", [1, 9, SLIDING - 2, SLIDING - 1, SLIDING, 40])
def test_what_a_sliding_window_hides_leaves_first(attention, budget):
    model, ids, sizes = tiny("sliding", attention), different(64), [30, 13, 1, 1, 1, 1, 17]
    found, cache = by_chunks(model, f"knorm:budget={budget},every=1", ids, sizes)
    evictions = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    expected = oracle.logits(model, [], ids, oracle.Rules(budget=budget, evictions=evictions, sliding=(SLIDING,) * 3))
    torch.testing.assert_close(found, expected, **CLOSE)
    assert cache.entries().tolist() == [[min(budget, SLIDING - 1)] * 2] * 3


def test_a_plan_that_evicts_in_the_prompt_only_lets_go_of_what_nobody_sees_at_every_step():
    model = tiny("sliding")
    cache = by_chunks(model, "knorm:budget=12,every=0", tokens(60), [20] + [1] * 40)[1]
    assert cache.entries().max() == SLIDING - 1
    assert cache.kv_bytes() == cache.entries().sum() * 2 * 8 * 4


def test_protected_tokens_out_of_sight_are_not_held_in_place_of_visible_ones():
    model, ids = tiny("sliding"), tokens(60)
    found, cache = by_chunks(model, "knorm:budget=18,sinks=6,recent=2,every=1", ids, [30] + [1] * 30)
    assert cache.entries().max() == SLIDING - 1
    torch.testing.assert_close(found, model(input_ids=ids[None]).logits[0], **CLOSE)


@pytest.mark.parametrize("text", ["knorm:budget=40,every=8", "tova:budget=18,every=5", "h2o:budget=300,every=3"])
def test_ppl_counts_visible_entries_only(text):
    ids = tokens(90)
    reading = read_text(tiny("sliding"), Recipe.of(text), ids)
    assert reading.visible.max() <= SLIDING
    expected = torch.arange(1, 91).clamp_max(SLIDING).double()
    torch.testing.assert_close(reading.visible, expected)


def mixed():
    """One full layer among sliding ones."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, use_sliding_window=True, sliding_window=11, max_window_layers=1,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def test_what_sliding_layers_have_no_tokens_for_goes_to_full_ones():
    model = mixed()
    plan = Pipeline(Recipe.of("knorm:budget=20,every=1")).eviction(adapter_for(model).geometry)
    assert plan.geometry.sliding == (None, 11, 11)
    assert plan.per_layer(100).tolist() == [40, 10, 10]
    assert plan.per_layer(30).tolist() == [30, 10, 10]
    assert plan.context(100) == 20
    cache = by_chunks(model, "knorm:budget=20,every=1", tokens(100), [90] + [1] * 10)[1]
    assert cache.entries().tolist() == [[40, 40], [10, 10], [10, 10]]
    assert cache.kv_bytes() == plan.kv_bytes(100, itemsize=4)


@settings(deadline=None, max_examples=12, derandomize=True)
@given(
    lengths=st.tuples(st.integers(1, 30), st.integers(1, 30)), sliding=st.sampled_from([None, 1, 2, 7]),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6), budget=st.integers(1, 12), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_score_layer_equals_masked_attention_over_the_whole_history(lengths, sliding, sizes, budget, seed):
    """Two left-padded rows; the shortest keys stay."""
    geometry = adapter_for(tiny("llama")).geometry
    width, generator = max(lengths), torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, heads, width, 8, generator=generator) for heads in (6, 2, 2))
    sliding_geometry = attrs.evolve(geometry, sliding=(sliding,) * 3) if sliding else geometry
    plan = ScorePlan(geometry=sliding_geometry, score=lambda e: -e.keys.norm(dim=-1), budget=budget, every=1, queries=0)
    layer = ScoreLayer(plan, 0, Scores(), None, sliding)
    real = torch.arange(width)[None] >= width - torch.tensor(lengths)[:, None]
    cuts = [0]
    while cuts[-1] < width:
        cuts.append(min(width, cuts[-1] + sizes[len(cuts) % len(sizes)]))
    for start, end in itertools.pairwise(cuts):
        layer.expect(None if real[:, start:end].all() else real[:, start:end])
        now = slice(start, end)
        out = layer.answer(New(query=query[:, :, now], key=key[:, :, now], value=value[:, :, now], scaling=0.4))
        for row in range(2):
            for head in range(6):
                pad = width - lengths[row]
                expected = masked(
                    query[row, head, pad:], key[row, head // 3, pad:], value[row, head // 3, pad:], budget, sliding,
                    [max(0, cut - pad) for cut in cuts],
                )  # fmt: skip
                for at in range(max(start, pad), end):
                    torch.testing.assert_close(out[row, head, at - start], expected[at - pad], **CLOSE)


class Scores:
    """What a layer asks of a pipeline."""

    def retained(self, plan, evidence):
        return retained(plan.score(evidence), evidence.positions, evidence.seen, plan, evidence.layer)


def masked(query, key, value, budget, sliding, cuts):
    """Attention (n, d) of one head, from the definition: full history, masks, the shortest visible keys stay."""
    count, reach = len(query), sliding or 10**9
    held, out = [], torch.empty(count, value.shape[1])
    for start, end in itertools.pairwise(cuts):
        for at in range(start, end):
            seen = [t for t in [*held, *range(start, at + 1)] if at - t < reach]
            out[at] = ((key[seen] @ query[at]) * 0.4).softmax(0) @ value[seen]
        visible = [t for t in [*held, *range(start, end)] if end - t < reach]
        held = sorted(sorted(visible, key=lambda t: key[t].norm().item())[:budget])
    return out


def rotary():
    return Rotary(adapter_for(tiny("llama")).decoder.text, "full_attention")


def exactly(states, distance, frequencies):
    """States (..., d) turned by ``distance`` (...), in float64."""
    angle = distance.double().unsqueeze(-1) * frequencies.double()
    first, second = states.double().chunk(2, dim=-1)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)


@pytest.mark.parametrize(("dtype", "count"), [(torch.bfloat16, 2500), (torch.float16, 300)])
def test_turning_keys_at_every_step_rounds_them_once(dtype, count):
    geometry = adapter_for(tiny("llama")).geometry
    plan = ScorePlan(geometry=geometry, score=lambda e: e.positions.float(), budget=24, sinks=4, every=1, rerotate=True)
    layer = ScoreLayer(plan, 0, Scores(), rotary())
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(1, 2, count, 8, generator=generator).to(dtype)
    query = torch.randn(1, 6, 1, 8, generator=generator).to(dtype)
    for at in range(count):
        layer.expect(None)
        key = keys[:, :, at : at + 1]
        layer.answer(New(query=query, key=key, value=key, scaling=0.35))
    left = torch.tensor([*range(4), *range(count - 20, count)])
    moved = torch.arange(count - 24, count) - left
    expected = exactly(keys[:, :, left], moved, tiny("llama").model.rotary_emb.inv_freq)
    off = (layer.keys.double() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert off.max() <= 0.004
    assert torch.equal(layer.values, keys[:, :, left])
    assert sum(states.nbytes for states in layer.held()) == 2 * 2 * 24 * 8 * 2  # nothing is held twice


def test_position_ids_start_anew_so_seldom_that_an_entry_is_turned_once(monkeypatch):
    monkeypatch.setattr(streaming, "REBASE", 16)
    starts, own = [], WindowLayer.rebase

    def rebase(self, distance):
        starts.append(self.counts[0])
        own(self, distance)

    monkeypatch.setattr(WindowLayer, "rebase", rebase)
    model, text = tiny("llama"), "streaming:sinks=2,window=40"
    read_text(model, Recipe.of(text), tokens(200), chunk=4)
    times = sorted(set(starts))
    assert len(times) > 2
    assert min(b - a for a, b in itertools.pairwise(times)) >= 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("text", ["window:window=6", "streaming:sinks=2,window=4", "knorm:budget=6,recent=6,every=1"])
def test_every_edge_of_a_cache_in_every_data_type(dtype, rows, text):
    """No entry, one, as many as there is room for, one less and one more; one token at a time, and a whole prompt."""
    model, exact = tiny("llama", dtype=dtype), tiny("llama")
    ids = torch.stack([tokens(9, seed) for seed in range(rows)])
    one, real = headwise.cache(model, Recipe.of(text)), headwise.cache(exact, Recipe.of(text))
    for at in range(9):
        found = model(input_ids=ids[:, at : at + 1], past_key_values=one).logits
        expected = exact(input_ids=ids[:, at : at + 1], past_key_values=real).logits
        assert (found.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
        assert one.layers[0].keys.dtype == one.layers[0].values.dtype == dtype
        assert one.layers[0].keys.shape == (rows, 2, min(at + 1, 6), 8)
    for length in (1, 5, 6, 7):
        cache = headwise.cache(model, Recipe.of(text))
        model(input_ids=ids[:, :length], past_key_values=cache)
        assert model(input_ids=ids[:, length : length + 1], past_key_values=cache).logits.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", ["window:window=50", "streaming:sinks=0,window=50", "knorm:budget=50"])
def test_guidance_says_what_it_says_without_a_recipe_that_evicts_nothing(dtype, text):
    model, ids = tiny("llama", dtype=dtype), tokens(8)[None]
    asked = {"max_new_tokens": 6, "guidance_scale": 1.5, "do_sample": False, "output_logits": True}
    asked["return_dict_in_generate"] = True
    stock = model.generate(ids, **asked)
    with headwise.attach(model, Recipe.of(text)):
        found = model.generate(ids, **asked)
    loose = {"rtol": 0.1, "atol": 0.1 * float(stock.logits[0].abs().max())}
    torch.testing.assert_close(found.logits[0], stock.logits[0], **(CLOSE if dtype == torch.float32 else loose))
    if dtype == torch.float32:
        assert torch.equal(found.sequences, stock.sequences)


@pytest.mark.parametrize(
    "text", ["window:window=9", "streaming:sinks=2,window=7", "streaming:sinks=2,window=7,positions=original"]
)
def test_keys_and_values_of_a_layer_are_those_of_the_stock_cache_that_are_left(text):
    model, ids = tiny("llama"), tokens(23)
    cache = by_chunks(model, text, ids, [11, *[1] * 12])[1]
    stock = model(input_ids=ids[None]).past_key_values
    left = [*range(14, 23)] if "sinks" not in text else [0, 1, *range(16, 23)]
    torch.testing.assert_close(cache.layers[0].keys, stock.layers[0].keys[:, :, left], **CLOSE)
    torch.testing.assert_close(cache.layers[0].values, stock.layers[0].values[:, :, left], **CLOSE)


def test_keys_are_none_before_the_first_forward_and_after_a_reset_and_refused_where_they_are_no_rectangle():
    model, ids = tiny("llama"), tokens(20)
    cache = by_chunks(model, "knorm:budget=6", ids, [20])[1]
    first = model(input_ids=ids[None, :3], past_key_values=copy.deepcopy(cache)).logits
    cache.reset()
    assert cache.layers[0].keys is None
    assert cache.layers[0].values is None
    assert cache.get_seq_length() == 0
    assert not cache.is_initialized
    model(input_ids=ids[None], past_key_values=cache)
    torch.testing.assert_close(model(input_ids=ids[None, :3], past_key_values=cache).logits, first)
    geometry = adapter_for(model).geometry
    plan = WindowPlan(geometry=geometry, sinks=[[0, 0]] * 3, windows=[[3, 8]] * 3)
    ragged = adapter_for(model).cache(Pipeline(Recipe.of("window:window=3")), plan)
    model(input_ids=ids[None], past_key_values=ragged)
    with pytest.raises(ModelError, match="hold different numbers of entries"):
        _ = ragged.layers[0].keys
    with pytest.raises(ModelError, match="not moved off its device"):
        ragged.offload(0)
    rows = headwise.cache(model, Recipe.of("window:window=9"))
    mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
    model(input_ids=ids[None, :5].expand(2, -1), attention_mask=mask, past_key_values=rows)
    with pytest.raises(ModelError, match="hold different numbers of entries"):
        _ = rows.layers[0].values


@pytest.mark.parametrize("text", ["window:window=9", "knorm:budget=6"])
def test_saving_a_cache_is_refused_in_a_sentence_and_copying_it_is_not(text):
    model, ids = tiny("llama"), tokens(20)
    cache = by_chunks(model, text, ids, [20])[1]
    with headwise.attach(model, Recipe.of(text)):
        converted = model(input_ids=ids[None]).past_key_values
    for one in (cache, converted):
        with pytest.raises(ModelError, match="cannot be pickled or saved"):
            torch.save(one, io.BytesIO())
    twin = copy.deepcopy(cache)
    more = [model(input_ids=ids[None, :2], past_key_values=one).logits for one in (cache, twin)]
    assert torch.equal(*more)


def dynamic():
    torch.manual_seed(0)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=512, rope_parameters=rope,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize(
    "text", ["window:window=90", "snapkv:budget=90", "tova:budget=90", "h2o:budget=90", "knorm:budget=90"]
)
def test_dynamic_rope_is_served_where_nothing_is_rotated(text):
    model, ids = dynamic(), tokens(40)
    found, _ = by_chunks(model, text, ids, [30, 1, 9])
    torch.testing.assert_close(found, model(input_ids=ids[None]).logits[0], **CLOSE)


@pytest.mark.parametrize(
    "text", ["streaming:sinks=2,window=9", "expected_attention:budget=9", "tova:budget=9,rerotate=true"]
)
def test_dynamic_rope_is_refused_where_keys_or_queries_would_move(text):
    with pytest.raises(ModelError, match="change with the length of the text and cannot be moved"):
        headwise.cache(dynamic(), Recipe.of(text))


@pytest.mark.parametrize("window", [2**63 - 1, 2**62, 10**25])
def test_windows_without_bound_keep_everything_and_never_overflow(window):
    model, ids = tiny("llama"), tokens(12)
    geometry = adapter_for(model).geometry
    plan = WindowPlan.uniform(geometry, 3, window)
    assert plan.keeps_everything
    assert plan.context(100) == 100
    assert (plan.visible(12) == 12).all()
    with pytest.raises(StrategyError, match="too large; give at most 2147483647"):
        Recipe.of(f"streaming:sinks=3,window={window}")
    found, cache = by_chunks(model, f"streaming:sinks=3,window={2**31 - 1}", ids, [5, 1, 6])
    torch.testing.assert_close(found, model(input_ids=ids[None]).logits[0], **CLOSE)
    assert cache.entries().max() == 12
