"""Score plans: against a slow decoder that knows no tensor cache, chunks against steps, padding, beams, bytes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.adapters.decoders import tiny, tokens
from tests.reference.scored_stream import ScoredStream

import headwise
from headwise.attachment import adapter_for
from headwise.errors import BudgetError, ContractError
from headwise.eviction import ScorePlan, grouped
from headwise.hookspecs import hookimpl
from headwise.recipe import Recipe
from headwise.registry import Strategy, resolve
from headwise_adapters.eviction.streaming import read_text

TIGHT = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=["eager", "sdpa"])
def attention(request):
    return request.param


@pytest.fixture(params=["neox", "llama"])
def model(request, attention):
    return tiny(request.param, attention)


class Given:
    """A strategy whose plan the test wrote."""

    def __init__(self, options):
        self.options = options

    @hookimpl
    def kv_eviction(self, geometry):
        return ScorePlan(geometry=geometry, **self.options)


def recipe(**options):
    mine = Strategy("kv_eviction", "given", "tests 1.0", Given(options))
    return Recipe(strategies={"token_pruning": resolve("token_pruning=none"), "kv_eviction": mine})


def heard(evidence):
    return grouped(evidence.accumulated_attention(), evidence.positions.shape[1])


def last_asked(evidence):
    return grouped(evidence.attention(1)[:, :, 0], evidence.positions.shape[1])


def values(evidence):
    """Value norms; a token read twice has the same one in the first layer, so later ones count a little more."""
    return evidence.values.float().norm(dim=-1) + 1e-3 * evidence.positions


PLANS = {
    "heard": ({"score": heard, "accumulates": True}, lambda head: torch.stack(head.accumulated_attention).mean(dim=1)),
    "last": ({"score": last_asked, "queries": 1}, lambda head: head.last.mean(dim=0)),
    "values": (
        {"score": values},
        lambda head: torch.stack(head.values).norm(dim=-1) + 1e-3 * torch.tensor(head.tokens),
    ),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("rerotate", [False, True])
@pytest.mark.parametrize(("every", "ratio"), [(1, None), (0, None), (3, 0.4)])
def test_eviction_equals_a_slow_decoder_that_holds_lists(attention, name, rerotate, every, ratio):
    model, ids, prompt = tiny("llama" if rerotate else "neox", attention), tokens(32), 20
    options, score = PLANS[name]
    keep = (lambda count: 10) if ratio is None else (lambda count: max(1, int(ratio * count + 1e-9)))
    budget = {"budget": 10} if ratio is None else {"ratio": ratio}
    cache = headwise.cache(model, recipe(**options, **budget, every=every, rerotate=rerotate))
    slow = ScoredStream(model, score, keep=keep, prompt=prompt, every=every, close=rerotate)
    with torch.no_grad():
        found = [model(input_ids=ids[None, :prompt], past_key_values=cache).logits[0]]
        found += [model(input_ids=token.view(1, 1), past_key_values=cache).logits[0] for token in ids[prompt:]]
        expected = slow.read(ids)
    torch.testing.assert_close(torch.cat(found), expected, **TIGHT)
    held = [[len(head.tokens) for head in slow.heads[layer]] for layer in range(3)]
    assert np.array_equal(held, cache.entries())


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("pooled", [False, True])
def test_a_chunk_of_every_tokens_equals_as_many_decoding_steps(model, name, pooled):
    ids, prompt = tokens(53), 21
    mine = recipe(**PLANS[name][0], budget=12, every=8, pooled=pooled, recent=2, sinks=1)
    steps, chunks = headwise.cache(model, mine), headwise.cache(model, mine)
    with torch.no_grad():
        for cache in (steps, chunks):
            model(input_ids=ids[None, :prompt], past_key_values=cache)
        one = [model(input_ids=token.view(1, 1), past_key_values=steps).logits[0] for token in ids[prompt:]]
        many = [model(input_ids=part[None], past_key_values=chunks).logits[0] for part in ids[prompt:].split(8)]
    torch.testing.assert_close(torch.cat(many), torch.cat(one), **TIGHT)
    assert np.array_equal(steps.entries(), chunks.entries())


def test_pooled_heads_hold_different_counts_and_no_byte_more_than_the_budget(model):
    plan = recipe(score=heard, accumulates=True, budget=16, every=1, pooled=True, floor=0.2)
    cache, ids = headwise.cache(model, plan), tokens(60)
    geometry = adapter_for(model).geometry
    entry = 2 * geometry.head_dim * 4
    with torch.no_grad():
        for start, end in [(0, 40), *((at, at + 1) for at in range(40, 60))]:
            model(input_ids=ids[None, start:end], past_key_values=cache)
            assert (cache.entries().sum(axis=1) == 16 * geometry.kv_heads).all()
            assert cache.kv_bytes() == int(cache.entries().sum()) * entry
    assert cache.entries().min() < 16 < cache.entries().max()


def test_bytes_are_the_budgets_after_every_eviction_and_never_more_than_every_above_it(model):
    mine, ids = recipe(score=values, budget=20, every=5), tokens(80)
    cache = headwise.cache(model, mine)
    geometry = adapter_for(model).geometry
    one = 2 * geometry.head_dim * 4 * geometry.layers * geometry.kv_heads
    with torch.no_grad():
        model(input_ids=ids[None, :50], past_key_values=cache)
        for step, token in enumerate(ids[50:], 1):
            model(input_ids=token.view(1, 1), past_key_values=cache)
            assert (20 + step % 5) * one == cache.kv_bytes()
    assert cache.bookkeeping_bytes() < 0.2 * cache.kv_bytes()


def test_a_budget_beyond_the_text_equals_the_full_cache(model):
    ids, mine = tokens(50), recipe(score=heard, accumulates=True, budget=500, every=4)
    with torch.no_grad():
        expected = model(input_ids=ids[None]).logits[0]
        cache = headwise.cache(model, mine)
        found = torch.cat([model(input_ids=part[None], past_key_values=cache).logits[0] for part in ids.split(17)])
    torch.testing.assert_close(found, expected, **TIGHT)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_equal_single_rows(model, name, side):
    mine = recipe(**PLANS[name][0], ratio=0.5, every=3, sinks=1, recent=1)
    rows, nexts, width = [tokens(31, 1), tokens(18, 2)], tokens(10, 9), 31
    ids, mask = torch.zeros(2, width, dtype=torch.long), torch.zeros(2, width, dtype=torch.long)
    for i, row in enumerate(rows):
        span = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[i, span], mask[i, span] = row, 1
    places = (mask.cumsum(dim=1) - 1).clamp_min(0)
    cache, later = headwise.cache(model, mine), []
    with torch.no_grad():
        model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache)
        for token in nexts:
            mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
            step = {"attention_mask": mask, "position_ids": mask.sum(dim=1, keepdim=True) - 1}
            later.append(model(input_ids=token.expand(2, 1), **step, past_key_values=cache).logits)
        for i, row in enumerate(rows):
            alone = headwise.cache(model, mine)
            model(input_ids=row[None], past_key_values=alone)
            own = [model(input_ids=token.view(1, 1), past_key_values=alone).logits[0] for token in nexts]
            torch.testing.assert_close(torch.cat(later, dim=1)[i], torch.cat(own), **TIGHT)


@pytest.mark.parametrize("text", ["snapkv:budget=12,every=2", "adakv:of=[h2o:budget=12,every=1]"])
def test_beams_for_a_padded_batch_equal_beams_for_single_rows(model, text):
    rows, steps = [tokens(30, 1), tokens(17, 2)], {"max_new_tokens": 10, "do_sample": False, "num_beams": 3}
    ids, mask = torch.zeros(2, 30, dtype=torch.long), torch.zeros(2, 30, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, 30 - len(row) :], mask[i, 30 - len(row) :] = row, 1
    with headwise.attach(model, Recipe.of(text)):
        both = model.generate(ids, attention_mask=mask, **steps)
        for i, row in enumerate(rows):
            alone = model.generate(row[None], attention_mask=torch.ones(1, len(row), dtype=torch.long), **steps)
            assert torch.equal(alone[0, len(row) :], both[i, 30:][: alone.shape[1] - len(row)])


def test_a_copied_cache_goes_its_own_way(model):
    mine, ids = recipe(score=heard, accumulates=True, budget=9, every=1), tokens(40)
    cache = headwise.cache(model, mine)
    with torch.no_grad():
        model(input_ids=ids[None, :25], past_key_values=cache)
        twin = copy.deepcopy(cache)
        expected = model(input_ids=ids[None, 25:], past_key_values=cache).logits
        found = model(input_ids=ids[None, 25:], past_key_values=twin).logits
    assert torch.equal(expected, found)


def test_rows_of_the_last_queries_equal_eager_attention(attention):
    model, ids, seen = tiny("llama", "eager"), tokens(30), {}

    def score(evidence):
        seen[evidence.layer] = evidence.attention(7)
        return values(evidence)

    with torch.no_grad():
        maps = model(input_ids=ids[None], output_attentions=True).attentions
        asked = tiny("llama", attention)
        cache = headwise.cache(asked, recipe(score=score, budget=20, queries=7))
        asked(input_ids=ids[None], past_key_values=cache)
    for layer in range(3):
        torch.testing.assert_close(seen[layer], maps[layer][:, :, -7:], rtol=1e-5, atol=1e-6)


def test_a_text_is_read_as_it_would_be_decoded(model):
    mine, ids = recipe(score=heard, accumulates=True, budget=12, every=4), tokens(41)
    reading = read_text(model, mine, ids)
    cache, logits = headwise.cache(model, mine), []
    with torch.no_grad():
        for token in ids:
            logits.append(model(input_ids=token.view(1, 1), past_key_values=cache).logits[0, 0])
    nll = torch.nn.functional.cross_entropy(torch.stack(logits[:-1]), ids[1:], reduction="none")
    torch.testing.assert_close(reading.nll.float(), nll, **TIGHT)
    assert reading.visible.tolist()[:12] == [float(place) for place in range(1, 13)]
    assert reading.visible.max() == 12 + 4
    assert reading.kv_bytes == cache.kv_bytes()


def test_what_a_strategy_does_wrong_names_it(model):
    for score, message in [
        (lambda evidence: evidence.values.norm(dim=-1)[..., :-1], "entry scores of shape"),
        (lambda evidence: evidence.values.norm(dim=-1) * float("nan"), "NaN entry scores"),
        (lambda evidence: None, "a NoneType as entry scores"),
    ]:
        cache = headwise.cache(model, recipe(score=score, budget=4))
        with torch.no_grad(), pytest.raises(ContractError, match=f"tests 1.0.*{message}"):
            model(input_ids=tokens(9)[None], past_key_values=cache)
    with pytest.raises(BudgetError, match="every=0 evicts after a prefill only"):
        read_text(model, recipe(score=values, budget=4, every=0), tokens(9))
