"""What a forward that drops visual tokens may be given, and what is refused before anything is computed."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.conftest import IMAGE, padded, pixels, prompt, tiny_llava
from tests.adapters.vision_models import NEXT, QWEN

import headwise
from headwise.errors import ModelError
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
OPTIONS = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, "suppress_tokens": [IMAGE]}
NO_ROWS = "inputs_embeds hold vectors that are no rows of the embedding table"


def fastv(layer: int = 2, keep: int = 4, **settings) -> Recipe:
    return Recipe.of(f"fastv:layer={layer}", keep=keep, **settings)


def merged(model, ids, images):
    """Embeddings in which the images' features stand already."""
    features = torch.cat(list(model.get_image_features(**images, return_dict=True).pooler_output))
    states = model.get_input_embeddings()(ids)
    return states.masked_scatter((ids == IMAGE).unsqueeze(-1), features.to(states.dtype))


@pytest.fixture
def untouched():
    """Refuses everything that a decoder layer of the models it is given would compute."""

    def watch(model):
        def refuse(*_):
            pytest.fail("a layer ran")

        model.model.language_model.layers[0].register_forward_pre_hook(refuse)
        return model

    return watch


@pytest.mark.parametrize("whose", ["head", "outer", "language model", "generate"])
@pytest.mark.parametrize("family", [None, NEXT, QWEN], ids=["llava", "llava_next", "qwen2_5_vl"])
def test_images_that_are_merged_already_are_refused(family, whose, untouched):
    model = tiny_llava("sdpa") if family is None else family.make("sdpa")
    if family is None:
        ids, images = prompt(3, "image", 5), {"pixel_values": pixels(1)}
    else:
        one = family.prompt(model, 3, family.sizes[0], 5)
        ids, images = one.ids, one.images
    states = merged(model, ids, images)
    call = {
        "head": model,
        "outer": model.model,
        "language model": model.model.language_model,
        "generate": lambda **given: model.generate(**given, **OPTIONS),
    }[whose]
    untouched(model)
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match=NO_ROWS):
        call(inputs_embeds=states)


def test_one_image_that_is_merged_beside_one_that_is_not_is_refused(model, untouched):
    ids, images = prompt(3, "image", 2, "image", 5), pixels(2)
    states = model.get_input_embeddings()(ids)
    states[:, 4:20] = merged(model, ids, {"pixel_values": images})[:, 4:20]
    assert model(inputs_embeds=states, pixel_values=images[1:]).logits.isfinite().all()
    untouched(model)
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match=NO_ROWS):
        model(inputs_embeds=states, pixel_values=images[1:])


def test_a_vector_next_to_a_word_is_no_word(model):
    states = model.get_input_embeddings()(prompt(9))
    states[0, 3, 7] = torch.nextafter(states[0, 3, 7], torch.tensor(9.0))
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match=NO_ROWS):
        model(inputs_embeds=states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_embeddings_of_words_are_run_as_ever(dtype):
    model, ids = tiny_llava("sdpa", dtype), prompt(9)
    states = model.get_input_embeddings()(ids)
    expected, said = model(input_ids=ids).logits, model.generate(inputs_embeds=states, **OPTIONS)
    with headwise.attach(model, fastv()):
        assert torch.equal(model(inputs_embeds=states).logits, expected)
        assert model.generate(inputs_embeds=states, **OPTIONS).tolist() == said.tolist()


def test_padding_may_be_any_vector(model):
    batch = padded([prompt(9), prompt(4)], "left")
    states = model.get_input_embeddings()(batch["input_ids"])
    states[batch["attention_mask"] == 0] = 0.5
    with headwise.attach(model, fastv()):
        model(inputs_embeds=states, attention_mask=batch["attention_mask"])


def test_embeddings_of_placeholders_are_pruned_as_the_placeholders_are(model):
    ids, images = prompt(3, "image", 5), pixels(1)
    with headwise.attach(model, fastv()):
        expected = model(input_ids=ids, pixel_values=images).logits
        found = model(inputs_embeds=model.get_input_embeddings()(ids), pixel_values=images).logits
    assert torch.equal(found, expected)
    assert not expected[0, 4:20].all()


@pytest.mark.parametrize("whose", ["head", "language model"])
@pytest.mark.parametrize("given", ["input_ids", "inputs_embeds"])
def test_what_is_said_after_a_pruned_prompt_may_be_given_anywhere(model, whose, given):
    ids, images, more = prompt(3, "image", 5), pixels(1), prompt(3, seed=4)[:, 1:]
    with headwise.attach(model, fastv()):
        first = model(input_ids=ids, pixel_values=images).past_key_values
        expected = model(input_ids=more, past_key_values=first).logits
        cache = model(input_ids=ids, pixel_values=images).past_key_values
        for word in more.split(1, dim=1):
            step = {given: word if given == "input_ids" else model.get_input_embeddings()(word)}
            called = model if whose == "head" else model.model.language_model
            out = called(**step, past_key_values=cache)
    last = out.logits if whose == "head" else model.lm_head(out.last_hidden_state)
    torch.testing.assert_close(last, expected[:, -1:], **CLOSE)


def test_a_forward_of_nothing_is_refused_as_the_stock_model_refuses_it(model):
    with headwise.attach(model, fastv()), pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
        model(pixel_values=pixels(1))
