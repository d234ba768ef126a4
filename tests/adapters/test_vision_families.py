"""Every vision-language family: dropping equals masking, alone and in batches, in prefill, decoding and generate."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from tests.adapters.stages import Watch
from tests.adapters.test_llava import fingerprint
from tests.adapters.vision_models import IMAGE, NEXT, QWEN, batch, scattered
from tests.reference import masked_vlm as reference
from transformers import LlavaForConditionalGeneration, SiglipVisionConfig

import headwise
from headwise.attachment import adapter_for
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 3e-5, "rtol": 1e-5}
OPTIONS = {"do_sample": False, "eos_token_id": None}


@pytest.fixture(params=[NEXT, QWEN], ids=lambda family: family.name)
def family(request):
    return request.param


made = functools.cache(lambda family, attention: family.make(attention))


@pytest.fixture
def model(family, attention):
    return made(family, attention)


@pytest.fixture
def plain(family):
    return made(family, "sdpa")


def quarter(model) -> int:
    """A budget that keeps a quarter of every row's visual tokens."""
    return adapter_for(model).geometry.visual_tokens // 4


def left_of(visual: int) -> int:
    """A quarter, rounded half up."""
    return max(1, int(visual / 4 + 0.5))


def spread(prompt) -> torch.Tensor:
    """Positions that ``uniform`` drops: all but the middles of equal parts of the visual tokens."""
    columns = prompt.columns
    keep = left_of(len(columns))
    kept = {columns[(2 * i + 1) * len(columns) // (2 * keep)] for i in range(keep)}
    return torch.tensor([p for p in columns if p not in kept])


def generated(model, prompt, steps=5, **options):
    """New tokens of a greedy generation."""
    out = model.generate(**prompt.inputs, max_new_tokens=steps, **OPTIONS, **options)
    return out[:, prompt.ids.shape[1] :].tolist()


def two_images(family, model, seed=0):
    return family.prompt(model, 3, family.sizes[0], 4, family.sizes[1], 5, seed=seed)


def one_image(family, model, seed=0):
    return family.prompt(model, 3, family.sizes[seed % 2], 5 + seed, seed=seed)


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("make", [one_image, two_images])
def test_fastv_equals_masked_keys(family, model, layer, make):
    prompt = make(family, model)
    gone = reference.fastv_dropped(model, prompt.inputs, layer, left_of(sum(prompt.visual)))
    expected = reference.masked_logits(model, prompt.ids, prompt.images, [(layer, gone)])
    with headwise.attach(model, Recipe.of(f"fastv:layer={layer}", keep=quarter(model))):
        pruned = model(**prompt.inputs)
    left = [p for p in range(prompt.ids.shape[1]) if p not in gone.tolist()]
    torch.testing.assert_close(pruned.logits[:, left], expected[:, left], **CLOSE)
    assert not pruned.logits[:, gone].any()
    lengths = [part.keys.shape[2] for part in pruned.past_key_values.layers]
    assert lengths == [prompt.ids.shape[1]] * layer + [len(left)] * (4 - layer)


@pytest.mark.parametrize("layer", [0, 2])
def test_generate_equals_masked_keys_with_and_without_cache(family, model, layer):
    prompt = two_images(family, model)
    stages = [(layer, spread(prompt))]
    expected = reference.masked_greedy(model, prompt.ids, prompt.images, stages, steps=5)
    with headwise.attach(model, Recipe.of(f"token_pruning=uniform:layer={layer}", keep=quarter(model))):
        assert generated(model, prompt) == expected.tolist()
        assert generated(model, prompt, use_cache=False) == expected.tolist()


@pytest.mark.parametrize("layer", [0, 2])
def test_random_drops_the_same_tokens_as_it_says(family, plain, layer):
    prompt, seen = one_image(family, plain), []
    with headwise.attach(
        plain, Recipe.of(f"token_pruning=random:layer={layer}", keep=quarter(plain)), observers=[Watch(seen)]
    ):
        found = generated(plain, prompt)
    kept = seen[0].kept[0].tolist()
    gone = torch.tensor([p for number, p in enumerate(prompt.columns) if number not in kept])
    assert len(kept) == left_of(len(prompt.columns))
    assert reference.masked_greedy(plain, prompt.ids, prompt.images, [(layer, gone)], steps=5).tolist() == found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("text", ["fastv:layer=2", "token_pruning=random:layer=1", "token_pruning=uniform:layer=0"])
def test_padded_batch_rows_equal_single_rows(family, model, side, text):
    prompts = [one_image(family, model, 1), two_images(family, model, 2), family.prompt(model, 9, seed=3)]
    together = batch(prompts, side)
    if family is NEXT:  # this family counts padding unless it is told where tokens stand
        together["position_ids"] = (together["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    with headwise.attach(model, Recipe.of(text, "max_attention", "fixed:heads=2", keep=quarter(model))):
        found = model(**together).logits
        for row, prompt in enumerate(prompts):
            own = found[row][together["attention_mask"][row].bool()]
            torch.testing.assert_close(own, model(**prompt.inputs).logits[0], **CLOSE)


@pytest.mark.parametrize("text", ["fastv:layer=2", "token_pruning=random:layer=0", "visionzip"])
def test_left_padded_generation_equals_single_rows(family, plain, text):
    prompts = [one_image(family, plain, 1), two_images(family, plain, 2), family.prompt(plain, 9, seed=3)]
    together = batch(prompts, "left")
    with headwise.attach(plain, Recipe.of(text, keep=quarter(plain))):
        found = plain.generate(**together, max_new_tokens=5, **OPTIONS)[:, together["input_ids"].shape[1] :]
        for row, prompt in zip(found.tolist(), prompts, strict=True):
            assert [row] == generated(plain, prompt)


@pytest.mark.parametrize("text", ["token_pruning=uniform:layer=2", "token_pruning=random:layer=0", "visionzip"])
def test_beams_follow_the_cache(family, plain, text):
    together = batch([one_image(family, plain, 1), one_image(family, plain, 2)], "left")
    options = {**OPTIONS, "num_beams": 3, "max_new_tokens": 5, "suppress_tokens": [IMAGE]}
    with headwise.attach(plain, Recipe.of(text, keep=quarter(plain))):
        cached = plain.generate(**together, **options)
        afresh = plain.generate(**together, **options, use_cache=False)
    assert afresh.tolist() == cached.tolist()


def test_second_turn_keeps_the_first_turns_choice(family, plain):
    prompt, turn = one_image(family, plain), family.prompt(plain, 4, seed=8).ids
    gone = reference.fastv_dropped(plain, prompt.inputs, 2, left_of(len(prompt.columns)))
    whole = torch.cat([prompt.ids, turn], 1)
    expected = reference.masked_logits(plain, whole, prompt.images, [(2, gone)])
    with headwise.attach(plain, Recipe.of("fastv:layer=2", keep=quarter(plain))):
        cache = plain(**prompt.inputs).past_key_values
        again = copy.deepcopy(cache)
        for held in (cache, again):
            found = plain(input_ids=turn, past_key_values=held).logits
            torch.testing.assert_close(found, expected[:, prompt.ids.shape[1] :], **CLOSE)


def test_second_turn_of_generate_goes_on_from_the_first_turns_cache(family, plain):
    prompt = one_image(family, plain)
    with headwise.attach(plain, Recipe.of("token_pruning=uniform:layer=2", keep=quarter(plain))):
        first = plain.generate(**prompt.inputs, max_new_tokens=3, return_dict_in_generate=True, **OPTIONS)
        whole = torch.cat([first.sequences, family.prompt(plain, 4, seed=8).ids], 1)
        inputs = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
        found = plain.generate(**inputs, past_key_values=first.past_key_values, max_new_tokens=3, **OPTIONS)
    expected = reference.masked_greedy(plain, whole, prompt.images, [(2, spread(prompt))], steps=3)
    assert found[:, whole.shape[1] :].tolist() == expected.tolist()


def test_keeping_everything_is_bit_identical(family, model):
    prompt, everything = two_images(family, model), 4 * quarter(model)
    expected = model(**prompt.inputs).logits
    for text in ("fastv:layer=2", "token_pruning=random:layer=0"):
        with headwise.attach(model, Recipe.of(text, keep=everything)):
            assert torch.equal(expected, model(**prompt.inputs).logits)


def test_prompt_without_image_is_untouched(family, plain):
    prompt = family.prompt(plain, 7)
    expected = plain(**prompt.inputs).logits
    with headwise.attach(plain, Recipe.of("fastv:layer=2", keep=quarter(plain))):
        assert torch.equal(expected, plain(**prompt.inputs).logits)


@pytest.mark.parametrize("text", ["fastv:layer=2", "token_pruning=random:layer=0", "visionzip"])
def test_model_is_as_before(family, plain, text):
    prompt = one_image(family, plain)
    plain(**prompt.inputs)  # transformers installs its own output recorders on the first forward
    before = fingerprint(plain)
    with headwise.attach(plain, Recipe.of(text, keep=quarter(plain))):
        generated(plain, prompt)
    assert before == fingerprint(plain)
    assert not {"get_image_features", "get_video_features"} & set(vars(plain.model))


def test_another_model_is_refused_with_what_is_missing(family):
    model = family.make("sdpa")
    model.model = model.model.language_model
    with pytest.raises(headwise.ModelError, match=r"has no model\.language_model; attach to a"):
        adapter_for(model)


def test_llava_on_siglip_keeps_all_tokens_and_has_no_class_token_among_them(tools):
    model = tools["tiny_llava"]("sdpa")
    tower = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
    )
    config = copy.deepcopy(model.config)
    config.vision_config, config.vision_feature_select_strategy = tower, "full"
    model = scattered(LlavaForConditionalGeneration(config))
    adapter, watch, images = adapter_for(model), [], tools["pixels"](1)
    assert adapter.geometry.visual_tokens == 16
    assert adapter.decoder.pictures({"pixel_values": images})[0].pieces[0].grid == (4, 4)
    with headwise.attach(model, Recipe.of("visionzip", keep=4), observers=[Watch(watch)]):
        model(input_ids=tools["prompt"](3, "image", 5), pixel_values=images)
    assert watch[0].kept.shape == (1, 4)
