"""Visual tokens dropped in front of layers with a sliding window of their own, in all layers or in some.

With ``positions=keep`` the window counts the tokens that were dropped, as that of the stock model does whose keys are
masked; with ``positions=compact`` it counts the survivors, as renumbered layers do.
"""

from __future__ import annotations

import attrs
import pytest
import torch
from tests.situations.families import WINDOW, llava_on_mistral, model_of
from tests.situations.situation import Situation
from tests.situations.verdict import refusal_of
from transformers.cache_utils import DynamicCache

import headwise
from headwise.attachment import adapter_for
from headwise.errors import ModelError
from headwise.recipe import Recipe
from headwise_adapters.attention.probe import Call
from headwise_adapters.attention.projections import Asked, own_rows
from headwise_adapters.cache.masks import NEVER, Tokens, renumbered, sliced

ONE = Situation(
    family="llava_mistral", attention="sdpa", dtype=torch.float32, pruning="fastv:layer=2", keep=6, rows=((3, "a", 9),),
    second=(2, "a", 3), steps=6, seed=3,
)  # fmt: skip
CHANGES = (
    {},
    {"attention": "eager"},
    {"chunks": (0.3, 0.8)},
    {"rows": ((3, "a", 4, "b", 9), (2,), ("a", 5)), "side": "left"},
    {"rows": ((3, "a", 4, "b", 9), (2,), ("a", 5)), "side": "right"},
    {"mode": "beams", "second": ()},
    {"mode": "greedy", "cache": "copied"},
    {"pruning": "pdrop:layers=1/2/3", "keep": 11},
    {"pruning": "token_pruning=uniform:layer=0"},
)
EVICTIONS = (
    "window:window=7", "window:window=15", "streaming:sinks=4,window=6,positions=original", "knorm:budget=300",
    "streaming:sinks=9,window=3,positions=original",
)  # fmt: skip


@pytest.mark.parametrize("positions", ["keep", "compact"])
@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_evicting_layers_count_what_was_dropped_for_the_models_own_window(number, positions):
    eviction = EVICTIONS[(number + (positions == "compact")) % len(EVICTIONS)]
    family = "llava_mixed" if number % 2 else "llava_mistral"
    situation = attrs.evolve(ONE, **{"eviction": eviction, "positions": positions, "family": family, **CHANGES[number]})
    assert refusal_of(situation) is None


MORE = (
    {"steps": 2},
    {"rows": ((30, "a", 9),), "chunks": (0.2, 0.5)},
    {"mode": "lookup", "second": ()},
    {"cache": "none", "second": ()},
    {"training": True, "second": ()},
)


@pytest.mark.parametrize("positions", ["keep", "compact"])
@pytest.mark.parametrize("number", range(len(CHANGES + MORE)))
def test_a_cache_of_sliding_layers_is_left_alone_and_its_masks_follow(number, positions):
    family = "llava_mistral" if number % 2 else "llava_mixed"
    changes = (CHANGES + MORE)[number]
    situation = attrs.evolve(ONE, **{"positions": positions, "family": family, **changes})
    told = refusal_of(situation)
    assert told is None or ("rows" in changes and positions == "compact" and "no longer has tokens that" in told)


def prompt(*, before=3, behind=9, images=1, seed=0):
    words = torch.randint(5, 50, (before + behind,), generator=torch.Generator().manual_seed(seed))
    ids = torch.cat([words[:before], torch.full((16 * images,), 4), words[before:]])[None]
    pixels = torch.randn(images, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "pixel_values": pixels}


@torch.no_grad()
def test_a_cache_without_sliding_layers_gives_the_same():
    """``DynamicCache()`` knows no config and holds everything."""
    model, found = model_of("llava_mistral", "sdpa", torch.float32), []
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=5)):
        for cache in (DynamicCache(), DynamicCache(config=model.config.get_text_config())):
            model(**prompt(), past_key_values=cache)
            steps = [model(input_ids=torch.tensor([[n]]), past_key_values=cache).logits for n in range(7, 25)]
            found.append(torch.cat(steps))
            kind = type(cache.layers[3]).__name__
            assert cache.layers[3].keys.shape[2] == (WINDOW - 1 if "Sliding" in kind else 12 + 5 + 18)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_sliding_cache_that_was_pruned_is_rolled_back_while_it_holds_all_and_emptied():
    model = model_of("llava_mistral", "sdpa", torch.float32)
    cache = DynamicCache(config=model.config.get_text_config())
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=5)):
        first = model(**prompt(), past_key_values=cache).logits
        with pytest.raises(ModelError, match="holds no more than a sliding window cannot be rolled back"):
            cache.crop(-2)
        cache.reset()
        torch.testing.assert_close(model(**prompt(), past_key_values=cache).logits, first)
        recorded = DynamicCache(config=model.config.get_text_config())
        recorded.activate_past_recording()
        model(**prompt(), past_key_values=recorded)
        recorded.crop(0)
        again = torch.tensor([[9, 8, 7]])
        expected = model(input_ids=again, past_key_values=recorded).logits
        recorded.crop(-3)
        torch.testing.assert_close(model(input_ids=again, past_key_values=recorded).logits, expected)


@torch.no_grad()
def test_rows_that_lost_different_numbers_are_refused_once_a_sliding_cache_has_let_go():
    model = model_of("llava_mistral", "sdpa", torch.float32)
    one, two = prompt(images=2), prompt(before=19)
    inputs = {name: torch.cat([one[name], two[name]]) for name in one}
    with headwise.attach(model, Recipe.of("token_pruning=uniform:layer=1", keep=3, positions="compact")):
        with pytest.raises(ModelError, match="no longer has tokens that positions=compact shows; use positions=keep"):
            model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=None)
        model.generate(**one, max_new_tokens=12, do_sample=False, eos_token_id=None)


@torch.no_grad()
def test_a_layers_own_attention_ends_where_its_window_does():
    """As eager attention has it in that layer."""
    model, inputs = llava_on_mistral(), prompt()
    output = model(**inputs, output_attentions=True, output_hidden_states=True)
    parts, length = adapter_for(model).decoder, inputs["input_ids"].shape[1]
    hidden, columns = output.hidden_states[2], torch.arange(3, 19)[None]
    ids = torch.arange(length)[None]
    rotary, real = parts.text.rotary_emb(hidden, ids), torch.ones(1, length, dtype=torch.bool)
    asked = Asked(torch.tensor([0]), torch.tensor([[24, 27]]), columns, real, ids, parts.window(2))
    found = own_rows(parts.layers[2], parts.attention_of(2), hidden, rotary, asked)
    torch.testing.assert_close(found, output.attentions[2][:, :, [24, 27]][..., 3:19], rtol=1e-4, atol=1e-6)
    assert (found == 0).any()


def test_attention_without_a_mask_ends_where_the_window_does():
    """Flash attention is told the window, and given no mask."""
    query, key = torch.randn(1, 2, 4, 8), torch.randn(1, 1, 10, 8)
    rows, asked, columns = torch.tensor([0]), torch.tensor([[0, 3]]), torch.arange(4)[None]
    back = torch.arange(6, 10)[:, None] - torch.arange(10)
    mask = ((back >= 0) & (back < 3))[None, None]
    expected = Call(query, key, mask, 0.3, True).rows(rows, asked, columns)
    torch.testing.assert_close(Call(query, key, None, 0.3, True, 3).rows(rows, asked, columns), expected)


def test_masks_of_the_last_keys_hide_all_others_and_renumbered_windows_count_survivors():
    index, never = torch.tensor([[0, 1, 5, 6, 8]]), torch.tensor([[2, 3, 4, 7, NEVER]])
    keys = Tokens(index, torch.tensor([[True, True, True, False, True]]), never)
    assert keys.missing.tolist() == [[0, 0, 3, 3, 4]]
    seen = sliced(torch.ones(1, 1, 2, 4, dtype=torch.bool), torch.tensor([[1]]), keys, past=7, flags=False)
    assert seen.tolist() == [[[[False, False, True, False, True]]]]
    asking = keys.last(1)  # number 4 without what was dropped; tokens 1 and 5 are 3 and 2 in front of it
    assert renumbered(None, asking, keys, 3, None)[0, 0].tolist() == [[False, False, True, False, True]]
    flags = torch.tensor([[1, 0, 1, 1, 1, 1, 1, 1, 1]])
    assert renumbered(flags, asking, keys, 5, None)[0, 0].tolist() == [[True, False, True, False, True]]


def test_flash_attention_counts_a_layers_own_tokens_and_is_refused_where_dropped_ones_count(monkeypatch):
    monkeypatch.setattr("headwise_adapters.pruning.forward.flagged", lambda text: True)
    model = model_of("llava_mistral", "sdpa", torch.float32)
    told = pytest.raises(ModelError, match="counts the tokens of a layer for its sliding window of 19")
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=5)), torch.no_grad(), told:
        model(**prompt())
