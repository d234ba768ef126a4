"""A cache that evicts relies on its model: padding comes from the caller's flags, and who does not ask is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.adapters.decoders import VOCAB, tiny, tokens
from tests.adapters.vision_models import batch
from tests.situations.families import FAMILIES, model_of
from tests.situations.run import switch
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, QuantizedCache

import headwise
from headwise.errors import ModelError
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
NOTHING_TO_EVICT = Recipe.of("window:window=500")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def two_rows(side):
    """Rows of 60 and 50 tokens."""
    mask = torch.ones(2, 60, dtype=torch.long)
    mask[1, slice(0, 10) if side == "left" else slice(50, 60)] = 0
    ids = torch.stack([tokens(60, 1), tokens(60, 2)]).masked_fill(mask == 0, 0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["sliding", "llama", "neox"])
def test_padding_is_counted_by_the_callers_flags_and_not_by_what_a_window_hides(family, attention, side):
    model, inputs = tiny(family, attention), two_rows(side)
    cache = headwise.cache(model, NOTHING_TO_EVICT)
    found, stock = model(**inputs, past_key_values=cache).logits, model(**inputs).logits
    assert {tuple(layer.counts) for layer in cache.layers} == {(60, 50)}
    for row in range(2):
        real = inputs["attention_mask"][row].bool()
        torch.testing.assert_close(found[row, real], stock[row, real], **CLOSE)


@pytest.mark.parametrize("sizes", [(60, 1, 1), (13, 30, 17, 1), (1,) * 20 + (40, 2)])
def test_chunks_and_single_tokens_of_padded_rows_are_counted_alike(sizes):
    model, inputs = tiny("sliding"), two_rows("left")
    more = torch.randint(3, VOCAB, (2, 2), generator=torch.Generator().manual_seed(3))
    ids = torch.cat([inputs["input_ids"], more], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(more)], dim=1)
    places = (mask.cumsum(-1) - 1).clamp_min(0)
    cache, start, parts = headwise.cache(model, NOTHING_TO_EVICT), 0, []
    for size in sizes:
        end = min(start + size, 62)
        given = {"input_ids": ids[:, start:end], "attention_mask": mask[:, :end], "position_ids": places[:, start:end]}
        parts.append(model(**given, past_key_values=cache).logits)
        start = end
    stock = model(input_ids=ids, attention_mask=mask, position_ids=places).logits[:, :start]
    torch.testing.assert_close(torch.cat(parts, dim=1)[mask[:, :start].bool()], stock[mask[:, :start].bool()], **CLOSE)


def test_a_vision_language_model_on_mistral_is_not_mistaken_for_a_padded_one():
    family = FAMILIES["llava_mistral"]
    prompt = family.of((6, "a", 9), seed=4)
    for attention in ("eager", "sdpa"):
        model = model_of("llava_mistral", attention, torch.float32)
        inputs = batch([prompt], "left")
        found = model(**inputs, past_key_values=headwise.cache(model, NOTHING_TO_EVICT))
        assert {tuple(layer.counts) for layer in found.past_key_values.layers} == {(prompt.ids.shape[1],)}
        torch.testing.assert_close(found.logits, model(**inputs).logits, **CLOSE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("text", ["streaming:sinks=2,window=9", "knorm:budget=9"])
def test_a_cache_filled_inside_a_block_is_refused_outside_of_it(attention, text):
    model = tiny("llama", attention)
    with headwise.attach(model, Recipe.of(text)):
        cache = model(input_ids=tokens(20)[None]).past_key_values
    with pytest.raises(ModelError, match="whose attention headwise did not patch; use it inside the `with` block"):
        model(input_ids=tokens(3)[None], past_key_values=cache)
    with headwise.attach(model, Recipe.of(text)):  # and no harm was done to it
        model(input_ids=tokens(3)[None], past_key_values=cache)


@pytest.mark.parametrize("other", ["neox", "qwen3", "llama"])
def test_a_cache_is_refused_by_another_model_also_of_the_same_shape(other):
    cache = headwise.cache(tiny("llama"), NOTHING_TO_EVICT)
    with pytest.raises(ModelError, match="for this very model"):
        tiny(other)(input_ids=tokens(5)[None], past_key_values=cache)


def test_a_forward_that_broke_off_spoils_its_cache_and_says_so():
    model = tiny("llama")
    cache = headwise.cache(model, NOTHING_TO_EVICT)
    model(input_ids=tokens(5)[None], past_key_values=cache)

    def breaks(*_):
        raise KeyError("out of memory, say")

    handle = model.model.layers[1].mlp.register_forward_pre_hook(breaks)
    with pytest.raises(KeyError):
        model(input_ids=tokens(2)[None], past_key_values=cache)
    handle.remove()
    with pytest.raises(ModelError, match="broken off halfway; start a new cache"):
        model(input_ids=tokens(2)[None], past_key_values=cache)
    cache.reset()
    model(input_ids=tokens(2)[None], past_key_values=cache)


@torch.enable_grad()
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", ["llama", "neox", "sliding"])
def test_gradient_checkpointing_is_refused_where_it_takes_the_cache_away(family, reentrant):
    model = tiny(family).train()
    switch(model, "enable")({"use_reentrant": reentrant})
    ids = tokens(30)[None]
    with (
        headwise.attach(model, Recipe.of("window:window=7")),
        pytest.raises(ModelError, match="gradient checkpointing takes the cache from the layers"),
    ):
        model(input_ids=ids, labels=ids)
    switch(model, "disable")()
    with headwise.attach(model, NOTHING_TO_EVICT):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    torch.testing.assert_close(loss, model(input_ids=ids, labels=ids, use_cache=False).loss, rtol=1e-5, atol=0)


class Forgetful(nn.Module):
    """A decoder layer that hands no cache on to the layer it wraps."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.self_attn = layer, layer.self_attn

    def forward(self, *args, **kwargs):
        return self.layer(*args, **{**kwargs, "past_key_values": None})


def test_a_layer_that_hands_no_keys_to_the_cache_never_sees_the_future():
    model = tiny("llama")
    model.model.layers[1] = Forgetful(model.model.layers[1])
    with (
        headwise.attach(model, NOTHING_TO_EVICT),
        pytest.raises(ModelError, match="was called without a cache, which would tell what a token may see"),
    ):
        model(input_ids=tokens(9)[None])


def test_score_plans_without_a_cache_and_attention_maps_are_refused_before_anything_is_computed():
    model, ran = tiny("llama", "eager"), []
    handle = model.model.layers[0].register_forward_pre_hook(lambda *_: ran.append(1))
    ids = tokens(20)[None]
    with headwise.attach(model, Recipe.of("knorm:budget=6")):
        with pytest.raises(ModelError, match="use_cache=False"):
            model(input_ids=ids, use_cache=False)
        with pytest.raises(ModelError, match="use_cache=False"):
            model.generate(ids, max_new_tokens=3, use_cache=False)
        with pytest.raises(ModelError, match="output_attentions"):
            model(input_ids=ids, output_attentions=True)
    handle.remove()
    assert not ran


@torch.enable_grad()
def test_attention_dropout_is_not_forgotten_silently():
    model = tiny("llama").train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    with (
        headwise.attach(model, NOTHING_TO_EVICT),
        pytest.raises(ModelError, match="attention_dropout is not applied"),
    ):
        model(input_ids=tokens(9)[None])


def test_a_cache_in_the_midst_of_a_forward_is_refused_to_another_thread():
    model, cache, ids = tiny("llama"), None, tokens(12)[None]
    cache, told = headwise.cache(model, Recipe.of("window:window=5")), []

    def interrupt(*_):
        if not told:
            told.append("begun")
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(lambda: model(input_ids=ids, past_key_values=cache))
            told.append(str(other.exception()))

    expected = model(input_ids=ids, past_key_values=headwise.cache(model, Recipe.of("window:window=5"))).logits
    handle = model.model.layers[1].mlp.register_forward_pre_hook(interrupt)
    try:
        found = model(input_ids=ids, past_key_values=cache).logits
    finally:
        handle.remove()
    assert "in the midst of another forward, as where threads share one; give each a cache" in told[1]
    torch.testing.assert_close(found, expected)
    assert {layer.columns for layer in cache.layers} == {12}
    model(input_ids=ids, past_key_values=cache)  # it is free again


def test_another_number_of_rows_is_refused_before_anything_runs():
    model, ran = tiny("llama"), []
    cache = headwise.cache(model, NOTHING_TO_EVICT)
    model(input_ids=tokens(5)[None], past_key_values=cache)
    handle = model.model.layers[0].register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(ModelError, match="a cache of 1 rows was given 3"):
        model(input_ids=tokens(4)[None].expand(3, -1), past_key_values=cache)
    handle.remove()
    assert not ran
    model(input_ids=tokens(4)[None], past_key_values=cache)
    pictures = model_of("llava", "sdpa", torch.float32)
    inputs = FAMILIES["llava"].of((3, "a", 5), 1)
    with headwise.attach(pictures, Recipe.of("fastv:layer=2", keep=5)):
        held = pictures(input_ids=inputs.ids, **inputs.images).past_key_values
        with pytest.raises(ModelError, match="this cache holds 1 rows and was given 2"):
            pictures(input_ids=tokens(4)[None].expand(2, -1) % 50, past_key_values=held)
        assert pictures(input_ids=tokens(4)[None] % 50, past_key_values=held).logits.shape[0] == 1


def offloading(config):
    cache = DynamicCache(config=config)
    cache.offloading = True  # as cache_implementation="offloaded" makes it, which needs a GPU
    return cache


@pytest.mark.parametrize(
    ("make", "pruned", "evicted"),
    [
        (offloading, None, "moved off its device between layers cannot evict"),
        (lambda config: EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config)),
         "a EncoderDecoderCache has no layers", "a EncoderDecoderCache cannot evict"),
    ],
)  # fmt: skip
def test_caches_of_other_kinds_are_refused_before_anything_runs(make, pruned, evicted):
    model, ran = model_of("llava", "sdpa", torch.float32), []
    inputs, config = FAMILIES["llava"].of((3, "a", 5), 1), model.config.get_text_config()
    handle = model.model.language_model.layers[0].register_forward_pre_hook(lambda *_: ran.append(1))
    recipes = {"fastv:layer=2": pruned, "window:window=7": evicted, "knorm:budget=9": evicted}
    for text, told in recipes.items():
        with headwise.attach(model, Recipe.of(text, keep=5 if "fastv" in text else None)):
            if told is not None:
                with pytest.raises(ModelError, match=told):
                    model(input_ids=inputs.ids, **inputs.images, past_key_values=make(config))
    handle.remove()
    assert not ran


def test_a_quantised_cache_is_pruned_like_any_other_and_cannot_evict():
    model = model_of("llava", "sdpa", torch.float32)
    inputs, config = FAMILIES["llava"].of((3, "a", 15), 1), model.config.get_text_config()
    try:
        make = [QuantizedCache("fp8", config) for _ in range(2)]
    except (ValueError, TypeError) as error:  # older transformers
        pytest.skip(str(error))
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=5)):
        usual = DynamicCache(config=config)
        for cache in (usual, make[0]):
            model(input_ids=inputs.ids, **inputs.images, past_key_values=cache)
        said = torch.tensor([[7, 8, 9]])
        exact, rough = (model(input_ids=said, past_key_values=cache).logits for cache in (usual, make[0]))
        assert (exact - rough).abs().mean() < 0.15 * exact.abs().mean()
    with headwise.attach(model, Recipe.of("window:window=7")), pytest.raises(ModelError, match="cannot evict"):
        model(input_ids=inputs.ids, **inputs.images, past_key_values=make[1])
