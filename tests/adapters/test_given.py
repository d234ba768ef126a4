"""What a forward that drops visual tokens may be given, and what is refused before anything is computed."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.conftest import IMAGE, padded, pixels, prompt, tiny_llava
from tests.adapters.vision_models import NEXT, QWEN
from transformers import DynamicCache, StaticCache

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


@pytest.mark.parametrize(
    ("family", "whose"),
    [(None, "head"), (None, "outer"), (None, "language model"), (None, "generate"), (NEXT, "head"), (QWEN, "outer")],
    ids=["head", "outer", "language model", "generate", "llava_next", "qwen2_5_vl"],
)
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


def two_texts():
    """Two prompts with an image each in one row of 2 x (1 + 3 + 16 + 5) tokens, and positions that start again."""
    ids = torch.cat([prompt(3, "image", 5, seed=1), prompt(3, "image", 5, seed=2)], dim=1)
    return ids, pixels(2), torch.arange(25).repeat(2)[None]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_texts_that_share_a_row_are_refused(model, cached, masked, untouched):
    ids, images, places = two_texts()
    mask = {"attention_mask": torch.ones_like(ids)} if masked else {}
    untouched(model)
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match="position_ids start again within a row"):
        model(input_ids=ids, pixel_values=images, position_ids=places, use_cache=cached, **mask)


@pytest.mark.parametrize("name", ["cu_seq_lens_q", "max_length_k", "seq_idx"])
def test_texts_told_apart_by_their_lengths_are_refused(model, name, untouched):
    ids, images, _ = two_texts()
    untouched(model)
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match=rf"packed texts \({name}\)"):
        model(input_ids=ids, pixel_values=images, **{name: torch.tensor([0, 25, 50])})


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("filler", [0, 1])
def test_positions_of_padding_begin_no_text(model, side, filler):
    batch, images = padded([prompt(3, "image", 5), prompt(6)], side), pixels(1)
    places = (batch["attention_mask"].cumsum(-1) - 1).masked_fill(batch["attention_mask"] == 0, filler)
    with headwise.attach(model, fastv()):
        model(**batch, pixel_values=images, position_ids=places)


def test_positions_of_qwen_are_read_along_the_text():
    model = QWEN.make("sdpa")
    one = QWEN.prompt(model, 3, QWEN.sizes[0], 5)
    length = one.ids.shape[1]
    with headwise.attach(model, fastv()):
        expected = model(**one.inputs).logits
        axes, _ = model.model.get_rope_index(one.ids, one.inputs["mm_token_type_ids"], one.images["image_grid_thw"])
        assert (axes.diff(dim=-1) < 1).any()
        found = model(**one.inputs, position_ids=torch.cat([torch.arange(length).expand(1, 1, -1), axes])).logits
        torch.testing.assert_close(found, expected, **CLOSE)
        torch.testing.assert_close(model(**one.inputs, position_ids=axes).logits, expected, **CLOSE)
        again = torch.arange(length).remainder(9).expand(1, 1, -1)
        with pytest.raises(ModelError, match="position_ids start again within a row"):
            model(**one.inputs, position_ids=torch.cat([again, axes]))


def test_packed_texts_without_an_image_are_left_to_the_stock_model(model):
    ids = torch.cat([prompt(6), prompt(4, seed=1)], dim=1)
    given = {"input_ids": ids, "position_ids": torch.cat([torch.arange(7), torch.arange(5)])[None], "use_cache": False}
    expected = model(**given).logits
    with headwise.attach(model, fastv()):
        assert torch.equal(model(**given).logits, expected)


def four_axes(flags, kind):
    """The causal mask (b, 1, n, n) of flags (b, n): bool or to be added, and what padding sees."""
    length = flags.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril() & flags.bool()[:, None, :]
    padding = ~flags.bool()[:, :, None]
    if "itself" in kind:
        seen = seen | (torch.eye(length, dtype=torch.bool) & padding)
    if "all" in kind:
        seen = seen | padding
    if "bool" in kind:
        return seen[:, None]
    low = -1e9 if "rough" in kind else torch.finfo(torch.float32).min
    return torch.zeros(seen.shape).masked_fill(~seen, low)[:, None]


@pytest.mark.parametrize(
    ("implementation", "kind"),
    [("eager", "added all"), ("eager", "added rough itself"), ("sdpa", "added itself"), ("sdpa", "bool itself"),
     ("sdpa", "bool all")],
)  # fmt: skip
def test_a_mask_with_four_axes_says_what_flags_say(implementation, kind):
    model = tiny_llava(implementation)
    batch, images = padded([prompt(5, "image"), prompt(2, "image", 9), prompt(3)], "left"), pixels(2)
    flags = batch["attention_mask"]
    places = (flags.cumsum(-1) - 1).clamp_min(0)
    given = {"input_ids": batch["input_ids"], "pixel_values": images, "position_ids": places}
    with headwise.attach(model, fastv(keep=5)):
        expected = model(**given, attention_mask=flags)
        found = model(**given, attention_mask=four_axes(flags, kind))
        real = flags.bool()
        torch.testing.assert_close(found.logits[real], expected.logits[real], **CLOSE)
        word = torch.tensor([[7], [8], [9]])
        flags, places = torch.cat([flags, torch.ones(3, 1, dtype=torch.long)], dim=1), places[:, -1:] + 1
        later = {"input_ids": word, "position_ids": places}
        expected = model(**later, attention_mask=flags, past_key_values=expected.past_key_values).logits
        seen = four_axes(flags, kind)[:, :, -1:]
        found = model(**later, attention_mask=seen, past_key_values=found.past_key_values).logits
        torch.testing.assert_close(found, expected, **CLOSE)


def blocks(*lengths):
    return torch.block_diag(*(torch.ones(n, n, dtype=torch.bool).tril() for n in lengths))[None, None]


@pytest.mark.parametrize(
    "seen",
    [
        blocks(25, 25),
        blocks(49, 1),
        blocks(50) & (torch.arange(50)[:, None] - torch.arange(50) < 30),
        blocks(50) & (torch.arange(50) != 10),
        blocks(50) & (torch.arange(50) < 47),
        torch.eye(50, dtype=torch.bool)[None, None],
    ],
    ids=["two texts", "a text of one token last", "a window", "a hole", "padding on the right", "nothing"],
)
def test_a_mask_that_shows_less_than_the_row_is_refused(seen, untouched):
    model, (ids, images, _) = untouched(tiny_llava("sdpa")), two_texts()
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match="an attention mask with 4 axes is followed"):
        model(input_ids=ids, pixel_values=images, attention_mask=seen)


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        ({"full_attention": None}, "an attention mask as a dict does not tell padding"),
        (torch.ones(1, 1, 1, 50, dtype=torch.bool), r"an attention mask \(1, 1, 1, 50\) is not one of 50 tokens"),
        (torch.ones(1, 50, 50, dtype=torch.bool), r"an attention mask \(1, 50, 50\) is not one of 50 tokens"),
    ],
)
def test_what_is_no_mask_of_these_tokens_is_refused(mask, sentence):
    model, (ids, images, _) = tiny_llava("sdpa"), two_texts()
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match=sentence):
        model(input_ids=ids, pixel_values=images, attention_mask=mask)


@pytest.mark.parametrize("text", ["fastv:layer=2", "uniform:layer=0", "pdrop:layers=1/2/3"])
def test_a_cache_that_grows_with_the_layers_is_as_good_as_any(model, text):
    ids, images, word = prompt(3, "image", 5), pixels(1), torch.tensor([[7]])
    with headwise.attach(model, Recipe.of(text, keep=4)):
        first = model(input_ids=ids, pixel_values=images)
        second = model(input_ids=ids, pixel_values=images, past_key_values=DynamicCache())
        assert torch.equal(first.logits, second.logits)
        expected = model(input_ids=word, past_key_values=first.past_key_values).logits
        assert torch.equal(model(input_ids=word, past_key_values=second.past_key_values).logits, expected)


@pytest.mark.parametrize("way", ["forward", "generate"])
def test_a_cache_of_fixed_length_is_refused_before_anything_runs(untouched, way):
    model, ids, images = tiny_llava("sdpa"), prompt(3, "image", 5), pixels(1)
    model.model.vision_tower.register_forward_pre_hook(lambda *_: None if way == "generate" else pytest.fail("it ran"))
    untouched(model)
    called, given = model, {"past_key_values": StaticCache(config=model.config.text_config, max_cache_len=64)}
    if way == "generate":
        called, given = model.generate, {"cache_implementation": "static", **OPTIONS}
    with headwise.attach(model, fastv()), pytest.raises(ModelError, match="StaticCache has a fixed length"):
        called(input_ids=ids, pixel_values=images, **given)


def test_prompts_without_an_image_go_into_any_cache(model):
    ids, caches = prompt(9), [StaticCache(config=model.config.text_config, max_cache_len=64) for _ in range(2)]
    expected = model(input_ids=ids, past_key_values=caches[0]).logits
    with headwise.attach(model, fastv()):
        assert torch.equal(model(input_ids=ids, past_key_values=caches[1]).logits, expected)
