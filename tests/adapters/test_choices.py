"""Choices belong to the prompt: the same tokens with a cache and without, with an assistant and without."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from tests.adapters.vision_models import IMAGE, PAD, batch
from tests.reference.masked_vlm import fastv_dropped, masked_greedy
from tests.situations.families import FAMILIES, model_of
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

import headwise
from headwise.errors import ModelError
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
VISUAL = ["llava", "llava_next", "qwen2_5_vl"]
GREEDY = {"do_sample": False, "eos_token_id": None, "pad_token_id": PAD, "max_new_tokens": 6}


class Told:
    """An observer: layer -> what it was told was kept, each time."""

    def __init__(self) -> None:
        self.kept = defaultdict(list)

    @headwise.hookimpl
    def selected(self, selection) -> None:
        self.kept[selection.layer].append(selection.kept.tolist())


def prompts(name, *seeds):
    """Prompts of two lengths, with images of two sizes."""
    parts = [(4, "a", 6), (2, "b", 3)]
    return [FAMILIES[name].of(parts[number % 2], seed=seed) for number, seed in enumerate(seeds)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", VISUAL)
def test_without_a_cache_fastv_says_what_masked_keys_say(name, attention):
    model, layer, keep = model_of(name, attention, torch.float32), 2, 3
    (prompt,) = prompts(name, 5)
    gone = fastv_dropped(model, prompt.inputs, layer, keep)
    expected = masked_greedy(model, prompt.ids, prompt.images, [(layer, gone)], GREEDY["max_new_tokens"])
    told = Told()
    with headwise.attach(model, Recipe.of(f"fastv:layer={layer}", keep=keep), observers=[told]):
        found = model.generate(**prompt.inputs, **GREEDY, use_cache=False)
    assert torch.equal(found[:, prompt.ids.shape[1] :], expected)
    assert [len(times) for times in told.kept.values()] == [1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llava", "fastv:layer=2"),
        ("llava", "pdrop:layers=1/2/3"),
        ("llava", "sparsevlm"),
        ("llava", "tome"),
        ("llava_next", "pdrop:layers=1/2/3"),
        ("llava_next", "visionzip"),
        ("llava_next", "feather:layer=1,second_layer=3"),
        ("qwen2_5_vl", "fastv:layer=1"),
        ("qwen2_5_vl", "dart:layer=2"),
        ("qwen2_5_vl", "tome"),
    ],
)
def test_rows_and_beams_say_the_same_without_a_cache(name, text):
    """Rows of different lengths and pictures; what is merged is merged again in the same way."""
    model, inputs = model_of(name, "sdpa", torch.float32), batch(prompts(name, 5, 8), "left")
    with headwise.attach(model, Recipe.of(text, keep=6)):
        for options in ({}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}):
            said = []
            for cached in (True, False):
                torch.manual_seed(0)
                said.append(model.generate(**inputs, **{**GREEDY, **options}, use_cache=cached))
            assert torch.equal(*said)


def repeating(name):
    """A prompt that ends as it begins, so that prompt lookup proposes words before any was said."""
    prompt = FAMILIES[name].of((6, "a", 9), seed=7)
    prompt.ids[0, -3:] = prompt.ids[0, 1:4]
    return prompt


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llava", "fastv:layer=2"),
        ("llava", "sparsevlm"),
        ("llava", "dart:layer=2"),
        ("llava_next", "pdrop:layers=1/2/3"),
        ("qwen2_5_vl", "sparsevlm"),
    ],
)
def test_words_that_an_assistant_proposes_are_not_asked(name, text):
    model, prompt, lengths = model_of(name, "sdpa", torch.float32), repeating(name), []
    said, told = [], []
    embeds = model.get_input_embeddings()
    handle = embeds.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[-1]))
    for options in ({}, {"prompt_lookup_num_tokens": 3}):
        told.append(Told())
        lengths.clear()
        with headwise.attach(model, Recipe.of(text, keep=6), observers=[told[-1]]):
            said.append(model.generate(**prompt.inputs, **GREEDY, **options))
    handle.remove()
    assert lengths[0] == prompt.ids.shape[1] + 3
    assert told[0].kept == told[1].kept
    assert torch.equal(*said)


def test_forwards_outside_of_generate_choose_each_for_itself():
    """Also after a generate that broke off."""
    model, (prompt,) = model_of("llava", "sdpa", torch.float32), prompts("llava", 5)
    longer = torch.cat([prompt.ids, torch.tensor([[9, 31, 17]])], dim=1)
    told = Told()

    def breaks(*_):
        raise KeyboardInterrupt

    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=3), observers=[told]):
        model.generate(**prompt.inputs, **GREEDY, use_cache=False)
        handle = model.model.language_model.layers[3].register_forward_pre_hook(breaks)
        with pytest.raises(KeyboardInterrupt):
            model.generate(**prompt.inputs, **GREEDY, use_cache=False)
        handle.remove()
        told.kept.clear()
        for ids in (longer, prompt.ids, longer[:, :-1]):
            inputs = {"input_ids": ids, "pixel_values": prompt.images["pixel_values"]}
            model(**inputs, use_cache=False)
            visual = (ids[0] == IMAGE).nonzero().flatten()
            left = torch.tensor(told.kept[2][-1][0])
            expected = fastv_dropped(model_of("llava", "eager", torch.float32), inputs, 2, 3)
            assert {*visual.tolist()} - {*visual[left].tolist()} == {*expected.tolist()}
    assert len(told.kept[2]) == 3


def test_the_same_picture_and_another_question_choose_anew_in_every_thread():
    """Threads that generate at once, and calls that follow each other, share nothing."""
    model, told = model_of("llava", "sdpa", torch.float32), Told()
    first = prompts("llava", 5)[0]
    asked = []
    for seed in (26, 27, 33, 35):  # none has the model say the placeholder of an image
        other = prompts("llava", seed)[0]
        ids = torch.where(first.ids == IMAGE, first.ids, other.ids)
        asked.append({"input_ids": ids, "pixel_values": first.images["pixel_values"]})

    def say(inputs):
        with torch.no_grad():
            return model.generate(**inputs, **GREEDY, use_cache=False)

    recipe = Recipe.of("fastv:layer=2", keep=3)
    expected = []
    for inputs in asked:
        gone = fastv_dropped(model_of("llava", "eager", torch.float32), inputs, 2, 3)
        images = {"pixel_values": inputs["pixel_values"]}
        expected.append(
            masked_greedy(model_of("llava", "eager", torch.float32), inputs["input_ids"], images, [(2, gone)], 6)
        )
    with headwise.attach(model, recipe, observers=[told]):
        one_by_one = [say(inputs) for inputs in asked]
        with ThreadPoolExecutor(4) as pool:
            at_once = list(pool.map(say, asked))
    width = first.ids.shape[1]
    for found in (one_by_one, at_once):
        assert [said[0, width:].tolist() for said in found] == [said[0].tolist() for said in expected]
    assert len({str(kept) for kept in told.kept[2]}) > 1


class Contrasted(LogitsProcessor):
    """Takes off what the model says about another picture, as visual contrastive decoding does."""

    def __init__(self, model, images) -> None:
        self.model, self.images = model, images

    def __call__(self, input_ids, scores):
        other = self.model(input_ids=input_ids, **self.images, use_cache=False).logits[:, -1]
        return 2 * scores - other


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_another_picture_in_the_same_call_has_choices_of_its_own(name):
    model, told, (prompt,) = model_of(name, "sdpa", torch.float32), Told(), prompts(name, 5)
    noise = {**prompt.images, "pixel_values": prompt.images["pixel_values"].flip(-1)}
    said = []
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=3), observers=[told]):
        for cached in (True, False):
            processors = LogitsProcessorList([Contrasted(model, noise)])
            said.append(model.generate(**prompt.inputs, **GREEDY, logits_processor=processors, use_cache=cached))
    assert torch.equal(*said)
    first, second, *again = told.kept[2]
    assert first != second
    assert again == [first, second]


def test_another_text_without_a_cache_in_generate_is_refused():
    model, (prompt, other) = model_of("llava", "sdpa", torch.float32), prompts("llava", 5, 8)

    class Other(LogitsProcessor):
        def __call__(self, input_ids, scores):
            model(**other.inputs, use_cache=False)
            return scores

    processors = LogitsProcessorList([Other()])
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=3)):
        with pytest.raises(ModelError, match="puts in another text than the prompt"):
            model.generate(**prompt.inputs, **GREEDY, logits_processor=processors)
        model(**other.inputs, use_cache=False)


def test_a_generate_that_goes_around_the_attached_model_needs_a_cache():
    """One that was taken from the model before, and one that was taken from the class."""
    model, (prompt,) = model_of("llava", "sdpa", torch.float32), prompts("llava", 5)
    before = model.generate
    ways = (before, partial(GenerationMixin.generate, model), partial(type(model).generate, model))
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=3)):
        expected = model.generate(**prompt.inputs, **GREEDY)
        for generate in ways:
            assert torch.equal(generate(**prompt.inputs, **GREEDY), expected)
            with pytest.raises(ModelError, match=r"call model\.generate inside the `with` block, or use a cache"):
                generate(**prompt.inputs, **GREEDY, use_cache=False)
            text = FAMILIES["llava"].of((7,), seed=1)
            assert torch.equal(
                generate(**text.inputs, **GREEDY, use_cache=False), model.generate(**text.inputs, **GREEDY)
            )
        with headwise.attach(model, Recipe.of("token_pruning=none")):
            plain = before(**prompt.inputs, **GREEDY, use_cache=False)
    assert torch.equal(plain, model.generate(**prompt.inputs, **GREEDY))


def test_in_a_nested_block_the_inner_recipe_chooses_and_its_choices_end_with_it():
    model, (prompt,) = model_of("llava", "sdpa", torch.float32), prompts("llava", 5)
    outer, inner = Told(), Told()
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=3), observers=[outer]):
        expected = model.generate(**prompt.inputs, **GREEDY)
        with headwise.attach(model, Recipe.of("token_pruning=random:layer=1", keep=5), observers=[inner]):
            said = [model.generate(**prompt.inputs, **GREEDY, use_cache=cached) for cached in (True, False)]
        found = model.generate(**prompt.inputs, **GREEDY, use_cache=False)
    assert torch.equal(*said)
    assert torch.equal(expected, found)
    assert (len(inner.kept[1]), len(outer.kept[2])) == (2, 2)
    assert "generate" not in vars(model)


@pytest.mark.parametrize("text", ["fastv:layer=2 window:window=7", "token_pruning=random:layer=0 window:window=5"])
def test_with_a_window_it_says_the_same_without_a_cache(text):
    model, inputs = model_of("llava", "sdpa", torch.float32), batch(prompts("llava", 5, 8), "left")
    with headwise.attach(model, Recipe.of(*text.split(), keep=6)):
        said = [model.generate(**inputs, **GREEDY, use_cache=cached) for cached in (True, False)]
    assert torch.equal(*said)
