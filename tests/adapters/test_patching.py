"""A model that is attached: by several threads, in nested blocks, touched, copied, compiled; as before afterwards."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
from contextlib import ExitStack, suppress
from functools import partial, wraps
from threading import Barrier, Thread

import pytest
import torch
from tests.adapters.conftest import pixels, prompt, tiny_llava
from tests.adapters.decoders import tiny, tokens
from tests.adapters.stages import SAMPLED
from tests.adapters.vision_models import NEXT, QWEN
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import headwise
from headwise import ModelError, Recipe
from headwise_adapters import patching
from headwise_adapters.patching import Patch, after, around, attending, before, memory, method, overridden

PRUNES = Recipe.of("fastv:layer=2", keep=4)
LOOKS = Recipe.of("visionzip", keep=6)
EVICTS = Recipe.of("streaming:sinks=1,window=5")
BOTH = Recipe.of("fastv:layer=2", "streaming:sinks=1,window=9", keep=4)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def asked(seed: int) -> dict[str, torch.Tensor]:
    ids = prompt(3, "image", 4 + seed, seed=seed)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels(1, seed=seed)}


def state(model):
    """Class, attributes, hooks and config of every module, and transformers' tables of attention functions.

    Qwen2.5-VL writes ``rope_deltas`` itself.
    """
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    tables = [
        {name: table[name] for name in table} for table in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS)
    ]
    return tables + [
        (
            type(m),
            {k: id(v) for k, v in vars(m).items() if k != "rope_deltas"},
            [list(getattr(m, name).items()) for name in names],
        )
        for m in model.modules()
    ]


def together(*tasks):
    """Run in threads; what each gave, or raised."""
    found = [None] * len(tasks)

    def run(place, task):
        try:
            with torch.no_grad():
                found[place] = task()
        except Exception as error:
            found[place] = error

    threads = [Thread(target=run, args=pair) for pair in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def meeting(module, parties):
    """A hook at which that many forwards wait for each other, so that they certainly overlap."""
    barrier = Barrier(parties, timeout=300)

    def meet(*_):
        barrier.wait()

    return module.register_forward_pre_hook(meet)


@pytest.mark.parametrize("recipe", [PRUNES, LOOKS, EVICTS, BOTH])
def test_threads_that_share_an_attached_model_get_what_one_thread_gets(recipe):
    model, inputs = tiny_llava("sdpa"), [asked(1), asked(2), asked(3)]
    with headwise.attach(model, recipe):
        expected = [model(**one).logits for one in inputs]
        handles = [meeting(model.model.language_model.layers[n], 3) for n in (1, 2, 3)]
        found = together(*(lambda one=one: model(**one).logits for one in inputs))
        for handle in handles:
            handle.remove()
        written = [model.generate(**one, **SAMPLED) for one in inputs]
        again = together(*(lambda one=one: model.generate(**one, **SAMPLED) for one in inputs))
    for one, other in zip(found + again, expected + written, strict=True):
        assert torch.equal(one, other)


def test_threads_with_recipes_of_their_own_do_not_see_each_other():
    model, inputs = tiny_llava("sdpa"), asked(1)
    recipes = [PRUNES, EVICTS, LOOKS]
    expected = [model(**inputs).logits]
    for recipe in recipes:
        with headwise.attach(model, recipe):
            expected.append(model(**inputs).logits)
    before, inside = state(model), Barrier(3, timeout=300)

    def under(recipe):
        with headwise.attach(model, recipe):
            inside.wait()
            found = model(**inputs).logits
            inside.wait()
        return found

    found = together(*(lambda recipe=recipe: under(recipe) for recipe in recipes))
    for one, other in zip(found, expected[1:], strict=True):
        assert torch.equal(one, other)
    assert state(model) == before
    assert torch.equal(model(**inputs).logits, expected[0])


def test_a_thread_without_a_block_is_refused_where_several_recipes_are_attached():
    model, inputs = tiny_llava("sdpa"), asked(1)
    inside, done, found = Barrier(3, timeout=300), Barrier(3, timeout=300), []

    def hold(recipe):
        with headwise.attach(model, recipe):
            inside.wait()
            done.wait()

    def ask():
        inside.wait()
        try:
            model(**inputs)
        except ModelError as error:
            found.append(str(error))
        done.wait()

    together(lambda: hold(PRUNES), lambda: hold(EVICTS), ask)
    assert len(found) == 1
    assert "2 recipes are attached to this model by other threads" in found[0]


def test_tasks_run_under_the_block_they_were_made_in():
    model, inputs = tiny_llava("sdpa"), asked(1)
    with headwise.attach(model, PRUNES):
        expected = model(**inputs).logits

    async def ask():
        await asyncio.sleep(0)
        return model(**inputs).logits

    async def main():
        with headwise.attach(model, PRUNES):
            return await asyncio.gather(ask(), ask(), asyncio.to_thread(lambda: model(**inputs).logits))

    with torch.no_grad():
        assert all(torch.allclose(one, expected, atol=1e-5) for one in asyncio.run(main()))


def test_caches_of_headwise_beside_plain_generation_leave_the_stock_model():
    model, ids = tiny("llama"), tokens(20)[None]
    before, stock = state(model), model.generate(ids, **{**SAMPLED, "suppress_tokens": None})
    expected = model.generate(ids, past_key_values=headwise.cache(model, EVICTS), max_new_tokens=5, do_sample=False)

    def plain():
        return model.generate(ids, **{**SAMPLED, "suppress_tokens": None})

    def cached():
        return model.generate(ids, past_key_values=headwise.cache(model, EVICTS), max_new_tokens=5, do_sample=False)

    found = together(plain, cached, plain, cached)
    assert [torch.equal(one, stock) for one in found[::2]] == [True, True]
    assert [torch.equal(one, expected) for one in found[1::2]] == [True, True]
    plain()  # whoever comes next takes off what nobody needs any more
    assert state(model) == before


def test_the_inner_recipe_replaces_the_outer_wholly_and_the_outer_is_back_afterwards():
    model, inputs = tiny_llava("sdpa"), asked(1)
    model(**inputs)  # transformers puts hooks of its own on a model in its first forward
    before, alone = state(model), []
    for recipe in (PRUNES, EVICTS, LOOKS, Recipe.of()):
        with headwise.attach(model, recipe):
            alone.append(model(**inputs).logits)
    with headwise.attach(model, PRUNES):
        for inner, expected in zip((PRUNES, EVICTS, LOOKS, Recipe.of()), alone, strict=True):
            with headwise.attach(model, inner):
                assert torch.equal(model(**inputs).logits, expected)
            assert torch.equal(model(**inputs).logits, alone[0])
    assert state(model) == before


def test_blocks_may_be_left_in_any_order():
    model, inputs = tiny_llava("sdpa"), asked(1)
    stock, before = model(**inputs).logits, state(model)
    with headwise.attach(model, EVICTS):
        expected = model(**inputs).logits
    outer, inner = headwise.attach(model, PRUNES), headwise.attach(model, EVICTS)
    outer.__enter__()
    inner.__enter__()
    together(lambda: outer.__exit__(None, None, None))
    assert torch.equal(model(**inputs).logits, expected)
    inner.__exit__(None, None, None)
    assert torch.equal(model(**inputs).logits, stock)
    assert state(model) == before


def test_a_forward_ends_under_the_recipe_it_began_under_whoever_leaves_the_block():
    model, inputs = tiny_llava("sdpa"), asked(1)
    model(**inputs)
    before = state(model)
    with headwise.attach(model, PRUNES):
        expected = model(**inputs).logits
    block, begun, left = headwise.attach(model, PRUNES), Barrier(2, timeout=300), Barrier(2, timeout=300)
    block.__enter__()

    def wait(*_):
        begun.wait()
        left.wait()

    handle = model.model.language_model.layers[1].register_forward_pre_hook(wait)

    def leave():
        begun.wait()
        block.__exit__(None, None, None)
        left.wait()

    found, _ = together(lambda: model(**inputs).logits, leave)
    handle.remove()
    assert torch.equal(found, expected)
    assert state(model) == before


@pytest.mark.parametrize("recipe", [PRUNES, LOOKS, EVICTS, BOTH])
def test_the_model_is_exactly_as_before_also_where_the_user_had_changed_it(recipe):
    model, inputs = tiny_llava("eager"), asked(1)
    original = model.model.get_image_features
    model.model.get_image_features = wraps(original)(partial(original))
    layer = model.model.language_model.layers[2]
    run = layer.forward
    layer.forward = wraps(run)(partial(run))
    stock, before = model(**inputs).logits, state(model)
    with headwise.attach(model, recipe):
        model(**inputs)
    assert state(model) == before
    with pytest.raises(KeyError), headwise.attach(model, recipe):
        raise KeyError
    assert state(model) == before
    with headwise.attach(model, recipe):
        del model.model.get_image_features, layer.forward
        model.model.language_model.layers[3].forward = other = model.model.language_model.layers[3].forward
    assert vars(model.model.language_model.layers[3])["forward"] is other
    del model.model.language_model.layers[3].forward
    assert not {"forward", "get_image_features"} & {*vars(layer), *vars(model.model)}
    assert torch.equal(model(**inputs).logits, stock)


@pytest.mark.parametrize("family", [NEXT, QWEN], ids=lambda family: family.name)
@pytest.mark.parametrize("recipe", [PRUNES, Recipe.of("snapkv:budget=8")])
def test_every_family_is_exactly_as_before(family, recipe):
    model = family.make()
    inputs = family.prompt(model, 3, family.sizes[0], 4).inputs
    model(**inputs)
    before = state(model)
    with headwise.attach(model, recipe):
        model(**inputs)
    assert state(model) == before


@pytest.mark.parametrize("recipe", [PRUNES, EVICTS, BOTH])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_set_inside_the_block_is_served(recipe, attention):
    with headwise.attach(model := tiny_llava(attention), recipe):
        expected = model(**asked(1)).logits
    with headwise.attach(model := tiny_llava("eager" if attention == "sdpa" else "sdpa"), recipe):
        model.set_attn_implementation(attention)
        torch.testing.assert_close(model(**asked(1)).logits, expected, **CLOSE)


@pytest.mark.parametrize("recipe", [PRUNES, EVICTS, LOOKS])
def test_copies_and_pickles_made_inside_are_stock_models_that_can_be_attached(recipe):
    model, inputs = tiny_llava("sdpa"), asked(1)
    with headwise.attach(model, recipe):
        torch.save(model, file := io.BytesIO())
        file.seek(0)
        copies = [copy.deepcopy(model), torch.load(file, weights_only=False)]
        expected = model(**inputs).logits
    stock = model(**inputs).logits
    with headwise.attach(model, recipe):
        assert all(torch.equal(one(**inputs).logits, stock) for one in copies)
    for one in copies:
        assert {type(part) for part in one.modules()} == {type(part) for part in model.modules()}
        with headwise.attach(one, recipe):
            assert torch.equal(one(**inputs).logits, expected)


def test_a_copy_made_while_a_cache_lives_is_stock_and_refuses_that_cache():
    model, ids = tiny("llama"), tokens(20)[None]
    cache, stock = headwise.cache(model, EVICTS), model(input_ids=ids).logits
    twin = copy.deepcopy(model)
    assert torch.equal(twin(input_ids=ids).logits, stock)
    with pytest.raises(ModelError, match="whose attention headwise did not patch"):
        twin(input_ids=ids, past_key_values=cache)
    other = headwise.cache(twin, EVICTS)
    with pytest.raises(ModelError, match="made for another model"):
        twin(input_ids=ids, past_key_values=cache)
    twin(input_ids=ids, past_key_values=other)


def test_a_cache_goes_on_under_its_own_recipe_only():
    model, ids = tiny("llama"), tokens(20)[None]
    cache = headwise.cache(model, EVICTS)
    model(input_ids=ids, past_key_values=cache)
    with (
        headwise.attach(model, Recipe.of("streaming:sinks=2,window=3")),
        pytest.raises(ModelError, match=r"this cache evicts by streaming.*and the recipe that is attached here by"),
    ):
        model(input_ids=ids, past_key_values=cache)
    with headwise.attach(model, EVICTS):
        model(input_ids=ids, past_key_values=cache)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, states):
        return self.inner(states) * 1.0


def test_layers_put_in_and_dtypes_changed_inside_are_served():
    model, inputs = tiny_llava("sdpa"), asked(1)
    with headwise.attach(model, BOTH):
        expected = model(**inputs).logits
        attention = model.model.language_model.layers[1].self_attn
        attention.q_proj = Wrapped(attention.q_proj)
        assert torch.equal(model(**inputs).logits, expected)
        model.double()
        found = model(**inputs | {"pixel_values": inputs["pixel_values"].double()}).logits
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)


WAYS = {
    "in_place": lambda m, **o: (m.compile(**o), m)[1],
    "wrapped": torch.compile,
    "forward": lambda m, **o: (setattr(m, "forward", torch.compile(m.forward, **o)), m)[1],
    "language_model": lambda m, **o: (m.model.language_model.compile(**o), m)[1],
    "language_model_wrapped": lambda m, **o: (
        setattr(m.model, "language_model", torch.compile(m.model.language_model, **o)),
        m,
    )[1],
    "layers": lambda m, **o: ([layer.compile(**o) for layer in m.model.language_model.layers], m)[1],
    "layers_wrapped": lambda m, **o: (
        [
            m.model.language_model.layers.__setitem__(n, torch.compile(layer, **o))
            for n, layer in enumerate(list(m.model.language_model.layers))
        ],
        m,
    )[1],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fullgraph", [False, True])
def test_compiled_models_are_served_in_every_way_as_eager_ones(way, fullgraph):
    inputs = asked(1)
    plain = tiny_llava("sdpa")
    model = WAYS[way](tiny_llava("sdpa"), backend="eager", fullgraph=fullgraph)
    for recipe in (PRUNES, EVICTS):
        with headwise.attach(plain, recipe):
            expected = plain(**inputs).logits
        with headwise.attach(model, recipe):
            torch.testing.assert_close(model(**inputs).logits, expected, **CLOSE)


@pytest.mark.filterwarnings("ignore")
def test_tracing_inside_is_refused_in_a_sentence():
    model = tiny("llama")
    with headwise.attach(model, EVICTS), pytest.raises(ModelError, match="cannot be traced or exported"):
        torch.jit.trace(model.model.layers[0].self_attn.forward and model, (tokens(5)[None],), strict=False)


def test_wrappers_nest_and_go_in_any_order():
    module = nn.Linear(2, 2)
    kind, x, seen = type(module), torch.ones(1, 2), []

    def wrapper(name):
        return lambda call, args, kwargs: (seen.append(name), call(*args, **kwargs))[1]

    first, second = around(module, wrapper("first")), around(module, wrapper("second"))
    first.__enter__()
    second.__enter__()
    module(x)
    first.__exit__(None, None, None)
    module(x)
    second.__exit__(None, None, None)
    module(x)
    assert seen == ["second", "first", "second"]
    assert type(module) is kind
    with memory() as own:
        assert own == {}


class BrokenError(Exception):
    pass


def fail(*_):
    raise BrokenError


@pytest.mark.parametrize("recipe", [PRUNES, LOOKS, EVICTS, BOTH])
@pytest.mark.parametrize("part", ["layers.0", "layers.2.self_attn", "layers.3.mlp"])
def test_a_forward_that_fails_leaves_the_model_as_it_was_in_nested_blocks_and_threads(recipe, part):
    model, inputs = tiny_llava("sdpa"), asked(1)
    stock, before_all = model(**inputs).logits, state(model)
    handle = model.model.language_model.get_submodule(part).register_forward_hook(fail)

    def run():
        with headwise.attach(model, EVICTS), suppress(BrokenError), headwise.attach(model, recipe):
            model(**inputs)
        with pytest.raises(BrokenError), headwise.attach(model, recipe):
            model(**inputs)

    assert together(run, run) == [None, None]
    handle.remove()
    assert state(model) == before_all
    assert torch.equal(model(**inputs).logits, stock)


def test_what_cannot_be_attached_leaves_nothing_behind():
    model, inputs = tiny_llava("sdpa"), asked(1)
    model(**inputs)
    del model.model.vision_tower.encoder.layers[-2:]
    before_all = state(model)
    for recipe in (Recipe.of("visionzip", keep=6), Recipe.of("visionzip", "streaming:sinks=1,window=5", keep=6)):
        with pytest.raises(ModelError, match="no encoder layer"), headwise.attach(model, recipe):
            pass
    assert state(model) == before_all


def test_wrappers_that_fail_are_taken_off():
    module, x = nn.Linear(2, 2), torch.ones(1, 2)
    kind = type(module)
    for patch in (before(module, fail), after(module, fail), around(module, fail), method(module, "forward", fail)):
        with pytest.raises(BrokenError), patch:
            module(x)
        assert type(module) is kind
    with pytest.raises(BrokenError), memory(), attending(module, fail):
        fail()
    assert type(module) is kind


def patched(module):
    """A patch of a module that only counts calls."""
    calls = []
    with ExitStack() as stack:
        stack.enter_context(before(module, lambda *_: calls.append(1)))
        return Patch(stack), calls


def test_a_patch_stays_for_its_holders_and_goes_once():
    module, x = nn.Linear(2, 2), torch.ones(1, 2)
    kind, (patch, calls) = type(module), patched(module)
    first, second = patch.hold(), patch.hold()
    first.release()
    first.release()
    module(x)
    assert calls == [1]
    twin = copy.deepcopy([second])  # what a cache keeps, and its copy
    assert twin[0] is second
    second.release()
    assert type(module) is kind
    second.release()
    patch.tidy()
    module(x)
    assert calls == [1]


def test_a_lost_handle_takes_nothing_off_until_somebody_tidies():
    module = nn.Linear(2, 2)
    kind, (patch, _) = type(module), patched(module)
    handle = patch.hold()
    del handle
    gc.collect()
    assert type(module) is not kind
    patch.tidy()
    assert type(module) is kind


def test_a_shared_patch_is_made_once_for_all_threads_and_again_when_it_is_gone():
    module, made = nn.Linear(2, 2), []
    kind = type(module)

    def make():
        patch, _ = patched(module)
        made.append(patch)
        return patch

    def use():
        for _ in range(200):
            handles = [Patch.shared(module, make) for _ in range(3)]
            assert type(module) is not kind
            for handle in handles:
                handle.release()

    outer = Patch.shared(module, make)
    assert together(use, use, use) == [None] * 3
    assert len(made) == 1
    outer.release()
    assert together(use, use, use) == [None] * 3
    assert len(made) > 1
    assert type(module) is kind


class Asked:
    def answer(self, number):
        return number + 1


def test_methods_of_other_objects_are_overridden_in_any_order_and_given_back():
    asked_object = Asked()

    def times(factor):
        return lambda call, args, kwargs: factor * call(*args, **kwargs)

    first, second = (overridden(asked_object, "answer", times(factor)) for factor in (10, 100))
    first.__enter__()
    second.__enter__()
    assert asked_object.answer(1) == 2000
    first.__exit__(None, None, None)
    assert asked_object.answer(1) == 200
    second.__exit__(None, None, None)
    assert vars(asked_object) == {}
    asked_object.answer = own = lambda number: -number
    with pytest.raises(BrokenError), overridden(asked_object, "answer", fail):
        asked_object.answer(1)
    assert vars(asked_object) == {"answer": own}


@pytest.mark.parametrize("others", [0, 1])
def test_what_the_garbage_collector_takes_off_in_the_midst_of_a_patch_stays_off(monkeypatch, others):
    module, calls = nn.Linear(2, 2), []
    kind, change = type(module), patching._Record.change
    lost = before(module, lambda *_: calls.append("lost"))
    lost.__enter__()
    pending = [lost]

    def interrupted(record, name, made):
        def collected(found):
            if pending:
                pending.pop().__exit__(None, None, None)
            return made(found)

        change(record, name, collected)

    with ExitStack() as stack:
        for _ in range(others):
            stack.enter_context(before(module, lambda *_: calls.append("other")))
        monkeypatch.setattr(patching._Record, "change", interrupted)
        stack.enter_context(before(module, lambda *_: calls.append("new")))
        module(torch.ones(1, 2))
    assert not pending
    assert calls == ["new", *["other"] * others]
    assert type(module) is kind
