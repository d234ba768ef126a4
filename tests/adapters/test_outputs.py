"""What a pruned forward gives back is as long as what was put in, and is what masked keys give."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.conftest import IMAGE, padded, pixels, prompt, tiny_llava
from tests.adapters.methods import Choices
from tests.adapters.stages import SAMPLED
from tests.adapters.vision_models import NEXT, QWEN
from tests.reference.masked_vlm import embedded, positions
from tests.situations.families import llava_on_mistral
from transformers import DynamicCache

import headwise
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 2e-5, "rtol": 1e-4}
TEXTS = ["fastv:layer=2", "pdrop:layers=1/2/3", "uniform:layer=0", "uniform:layer=3"]
BOTH = {"output_hidden_states": True, "output_attentions": True}
LOW = torch.finfo(torch.float32).min


def masked(model, ids, images, gone):
    """Hidden states (1, n, d) in front of every layer and behind the norm, and maps (1, h, n, n), with masked keys.

    ``gone``: layer -> positions that are gone from it on, whose outputs are zeros.
    """
    language, states, out = model.model.language_model, embedded(model, ids, images), torch.zeros(ids.shape[1]).bool()
    rotary = language.rotary_emb(states, position_ids=positions(model, ids, images))
    hidden, maps = [states], []
    for number, layer in enumerate(language.layers):
        out[list(gone.get(number, ()))] = True
        allowed = torch.ones(len(out), len(out)).bool().tril() & (~out | torch.eye(len(out)).bool())
        mask = torch.zeros(allowed.shape).masked_fill(~allowed, LOW)[None, None]
        found = layer.self_attn(layer.input_layernorm(states), attention_mask=mask, position_embeddings=rotary)[1]
        maps.append(found.masked_fill(out[:, None], 0))
        states = layer(states, attention_mask=mask, position_embeddings=rotary, position_ids=None)
        hidden.append((language.norm(states) if number == len(language.layers) - 1 else states) * ~out[:, None])
    return hidden, maps


def choosing(attached, start: int) -> Choices:
    choices = Choices.watching(attached)
    choices.image_at(start)
    return choices


def check(found, expected, start: int = 0, end: int | None = None):
    """Hidden states and maps of tokens from ``start`` on are those of a run of everything."""
    hidden, maps = expected
    end = hidden[0].shape[1] if end is None else end
    assert [states.shape for states in found.hidden_states] == [states[:, start:end].shape for states in hidden]
    for one, other in zip(found.hidden_states, hidden, strict=True):
        torch.testing.assert_close(one, other[:, start:end], **CLOSE)
    for one, other in zip(found.attentions, maps, strict=True):
        torch.testing.assert_close(one, other[:, :, start:end, :end], **CLOSE)


@pytest.mark.parametrize(("text", "whose"), [*((text, "outer") for text in TEXTS), ("pdrop:layers=1/2/3", "head")])
def test_every_layer_gives_what_it_gives_with_masked_keys(text, whose):
    model, ids, images = tiny_llava("eager"), prompt(3, "image", 5), {"pixel_values": pixels(1)}
    called = model if whose == "head" else model.model
    with headwise.attach(model, Recipe.of(text, keep=4)) as attached:
        choices = choosing(attached, 4)
        found = called(input_ids=ids, **images, **BOTH)
    assert sum(map(len, choices.gone.values())) == 16 - len(choices.entered) > 0
    check(found, masked(model, ids, images, choices.gone))
    if whose == "outer":
        assert found.hidden_states[-1] is found.last_hidden_state


@pytest.mark.parametrize("text", TEXTS)
def test_so_does_every_turn_and_every_token_said(text):
    model = tiny_llava("eager")
    turns = [prompt(3, "image", 5), prompt(2, seed=3)[:, 1:], prompt(2, "image", 3, seed=1), prompt(1, seed=4)[:, 1:]]
    images, found, starts, cache = pixels(2), [], [0], DynamicCache()
    with headwise.attach(model, Recipe.of(text, keep=4)) as attached:
        choices = Choices.watching(attached)
        for number, ids in enumerate(turns):
            given = {"pixel_values": images[number // 2][None]} if number % 2 == 0 else {}
            if given:
                choices.image_at(starts[-1] + int((ids[0] == IMAGE).nonzero()[0]))
            found.append(model(input_ids=ids, past_key_values=cache, **given, **BOTH))
            starts.append(starts[-1] + ids.shape[1])
    hidden, maps = masked(model, torch.cat(turns, dim=1), {"pixel_values": images}, choices.gone)
    for one, start, end in zip(found, starts, starts[1:], strict=False):
        check(one, (hidden, maps), start, end)


@pytest.mark.parametrize(("family", "keep"), [(NEXT, 6), (QWEN, 300)], ids=["llava_next", "qwen2_5_vl"])
@pytest.mark.parametrize("text", ["fastv:layer=2", "uniform:layer=0"])
def test_so_do_other_families(family, keep, text):
    model = family.make("eager")
    one, kept = family.prompt(model, 3, family.sizes[0], 5), []

    class Told:
        @headwise.hookimpl
        def selected(self, selection):
            kept.append((selection.layer, selection.kept[0].tolist()))

    with headwise.attach(model, Recipe.of(text, keep=keep), observers=[Told()]):
        found = model(**one.inputs, **BOTH)
    ((layer, left),) = kept
    gone = [place for number, place in enumerate(one.columns) if number not in left]
    assert gone
    check(found, masked(model, one.ids, one.images, {layer: gone}))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("text", ["fastv:layer=2", "uniform:layer=0"])
def test_rows_of_a_batch_give_what_each_gives_alone(side, text):
    """The second row keeps more than the first, the third has no image."""
    model = tiny_llava("eager")
    rows = [prompt(3, "image", 5, seed=1), prompt(2, "image", 2, "image", seed=2), prompt(9, seed=3)]
    batch, images = padded(rows, side), pixels(3)
    places = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    with headwise.attach(model, Recipe.of(text, keep=4)):
        together = model(**batch, position_ids=places, pixel_values=images, **BOTH)
        for number, (ids, own) in enumerate(zip(rows, (images[:1], images[1:], None), strict=True)):
            alone = model(input_ids=ids, **({} if own is None else {"pixel_values": own}), **BOTH)
            real = batch["attention_mask"][number].bool()
            for one, other in zip(together.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(one[number, real], other[0], **CLOSE)
            for one, other in zip(together.attentions, alone.attentions, strict=True):
                torch.testing.assert_close(one[number][:, real][:, :, real], other[0], **CLOSE)


@pytest.mark.parametrize("text", ["tome", "visionzip", "divprune"])
def test_outputs_of_what_is_merged_in_front_of_layer_0_are_as_long(text):
    model, ids, images = tiny_llava("eager"), prompt(3, "image", 5), {"pixel_values": pixels(1)}
    with headwise.attach(model, Recipe.of(text, keep=5)) as attached:
        choices = choosing(attached, 4)
        found = model.model(input_ids=ids, **images, **BOTH)
    gone = [p for layer in choices.gone.values() for p in layer]
    assert len(gone) == 11
    torch.testing.assert_close(found.hidden_states[0], embedded(model, ids, images))
    for states in found.hidden_states[1:]:
        assert not states[:, gone].any()
        assert states[0].any(dim=-1).sum() == 14
    for maps in found.attentions:
        assert maps.shape == (1, 4, 25, 25)
        assert not maps[:, :, gone].any()
        assert not maps[..., gone].any()
        torch.testing.assert_close(maps.sum(-1)[:, :, 20:], torch.ones(1, 4, 5))


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"use_cache": False}, {"prompt_lookup_num_tokens": 2}])
def test_what_generate_collects_has_the_shapes_of_the_stock_model(options):
    model, ids = tiny_llava("eager"), torch.cat([prompt(3, "image", 2), torch.tensor([[7, 8, 9, 7, 8]])], dim=1)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels(1)}
    given.update(SAMPLED, **options, **BOTH, return_dict_in_generate=True)

    def shapes(told):
        return [[tuple(one.shape) for one in step] for part in (told.hidden_states, told.attentions) for step in part]

    expected = model.generate(**given)
    with headwise.attach(model, Recipe.of("uniform:layer=2", keep=16)):
        assert shapes(model.generate(**given)) == shapes(expected)
    with headwise.attach(model, Recipe.of("uniform:layer=2", keep=4)):
        found = model.generate(**given)
        plain = model.generate(**{**given, "output_hidden_states": False, "output_attentions": False})
    assert found.sequences.tolist() == plain.sequences.tolist()
    if "prompt_lookup_num_tokens" not in options:  # its steps are as long as what was guessed right
        assert shapes(found) == shapes(expected)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("uniform:layer=0", 0), ("fastv:layer=2", -1), ("fastv:layer=2", 3), ("uniform:layer=0", [0, 2, -2])],
)
def test_hidden_states_that_nobody_asked_for_are_left_out(text, chosen):
    model, ids, images = tiny_llava("sdpa"), prompt(3, "image", 5), pixels(1)
    inputs = {"input_ids": ids, "pixel_values": images}
    stock = [model(**inputs, output_hidden_states=asked).hidden_states for asked in (True, chosen)]
    with headwise.attach(model, Recipe.of(text, keep=4)):
        every, found = (model(**inputs, output_hidden_states=asked).hidden_states for asked in (True, chosen))
    if not stock[1]:  # transformers took an index of 0 for False once
        assert not found
        return
    for one, own in zip(found, stock[1], strict=True):
        same = [n for n, states in enumerate(stock[0]) if own is not None and torch.equal(states, own)]
        assert [n for n, states in enumerate(every) if one is not None and torch.equal(states, one)] == same


@pytest.mark.parametrize("whose", ["head", "outer", "language model"])
def test_tuples_are_as_long_as_named_outputs(model, whose):
    ids, images, word = prompt(3, "image", 5), pixels(1), torch.tensor([[7]])
    called = {"head": model, "outer": model.model, "language model": model.model.language_model}[whose]
    asked = {"output_hidden_states": True, "use_cache": True}
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)):
        found = []
        for form in (True, False):
            cache = model(input_ids=ids, pixel_values=images).past_key_values
            step = {"input_ids": word, "past_key_values": cache}
            if whose != "language model":
                step = {"input_ids": ids, "pixel_values": images}
            found.append(called(**step, **asked, return_dict=form))
    named, plain = found
    assert isinstance(plain, tuple)
    torch.testing.assert_close(plain[0], named[0])
    for one, other in zip(plain[2], named.hidden_states, strict=True):
        torch.testing.assert_close(one, other)


def test_attention_that_makes_no_maps_gives_those_of_the_stock_model():
    model, ids, images = tiny_llava("sdpa"), prompt(3, "image", 5), pixels(1)
    expected = model(input_ids=ids, pixel_values=images, output_attentions=True).attentions
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)):
        assert model(input_ids=ids, pixel_values=images, output_attentions=True).attentions == expected


def test_dropout_of_attention_is_applied_in_training():
    model, ids, images = tiny_llava("eager"), prompt(3, "image", 5), pixels(1)
    for layer in model.model.language_model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    with headwise.attach(model, Recipe.of("uniform:layer=2", keep=4)):
        maps = model(input_ids=ids, pixel_values=images, output_attentions=True).attentions
    assert maps[3].shape == (1, 4, 25, 25)
    dropped = (maps[3][0, :, -1] == 0).sum(-1)
    assert (dropped > 12).all()
    assert not torch.allclose(maps[3][0, :, -1].sum(-1), torch.ones(4))


def test_labels_line_up_whatever_else_is_asked_for(model):
    ids, images = prompt(3, "image", 5), pixels(1)
    labels = ids.masked_fill(ids == IMAGE, -100)
    with headwise.attach(model, Recipe.of("uniform:layer=0", keep=4)):
        plain = model(input_ids=ids, pixel_values=images, labels=labels)
        asked = model(input_ids=ids, pixel_values=images, labels=labels, **BOTH)
        pieces = model(input_ids=ids, pixel_values=images, labels=labels, return_dict=False)
    assert torch.equal(plain.loss, asked.loss)
    assert torch.equal(plain.loss, pieces[0])
    expected = torch.nn.functional.cross_entropy(plain.logits[0, :-1], labels[0, 1:])
    torch.testing.assert_close(plain.loss, expected)
    torch.testing.assert_close(model.lm_head(asked.hidden_states[-1]), asked.logits)


@pytest.mark.parametrize("text", ["uniform:layer=2", "uniform:layer=0"])
def test_maps_of_a_cache_that_holds_a_window_have_the_columns_of_the_stock_model(text):
    model, ids, images = llava_on_mistral("eager"), prompt(3, "image", 5), pixels(1)

    def turns():
        cache = DynamicCache(config=model.config.text_config)
        yield model(input_ids=ids, pixel_values=images, past_key_values=cache, **BOTH)
        for words in ([[7]], [[8, 9, 10]]):
            yield model(input_ids=torch.tensor(words), past_key_values=cache, **BOTH)

    expected = list(turns())
    with headwise.attach(model, Recipe.of(text, keep=4)):
        found = list(turns())
    for one, other in zip(found, expected, strict=True):
        assert [maps.shape for maps in one.attentions] == [maps.shape for maps in other.attentions]
        for maps in one.attentions:  # all that was seen is there
            torch.testing.assert_close(maps[:, :, -1].sum(-1), torch.ones(1, 4))
    assert found[1].attentions[3].shape[3] == 19
    assert (found[1].attentions[3] == 0).sum(-1).min() > 0
