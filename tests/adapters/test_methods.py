"""Every shipped method on every ordinary input: batches, padding, several images, turns, beams, GQA, half precision."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.adapters.methods import (
    BY_IMAGE,
    IMAGE,
    METHODS,
    VISUAL,
    Choices,
    Kept,
    held,
    marks,
    recipe_of,
    write_weights,
)

import headwise
from headwise.budget import kv_bytes

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
OPTIONS = {"eos_token_id": None, "pad_token_id": 0, "suppress_tokens": [IMAGE]}  # the stock model cannot reread its own
EVERY = pytest.mark.parametrize("method", METHODS)
KEEP, FIRST = 5, 4  # tokens kept of an image; where it begins: begin-of-sequence and three words precede it


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def made():
    """Models that were made already."""
    return {}


@pytest.fixture
def model_of(made, tools):
    """Makes a model, or finds the one that was made like it."""

    def find(*config):
        if config not in made:
            made[config] = tools["tiny_llava"](*config)
        return made[config]

    return find


@pytest.fixture
def recipe(method, weights):
    """The recipe of the method, keeping 5 of 16 tokens unless told otherwise."""

    def build(keep=KEEP, **settings):
        return recipe_of(method, weights, keep=keep, **settings)

    return build


@pytest.fixture
def single(tools):
    """A prompt of 25 tokens with one image."""
    ids = tools["prompt"](3, "image", 5)
    return {"input_ids": ids, "pixel_values": tools["pixels"](1), "attention_mask": torch.ones_like(ids)}


@pytest.fixture
def rows(tools):
    """Prompts of different lengths with one image, one image, none and two images, and their images."""
    parts = [(3, "image", 5), (2, "image", 9), (25,), (2, "image", 2, "image", 3)]
    ids = [tools["prompt"](*row, seed=number) for number, row in enumerate(parts)]
    images = [tools["pixels"](row.count("image"), number) for number, row in enumerate(parts)]
    return list(zip(ids, images, strict=True))


def together(tools, rows, side):
    """Arguments of one forward of some rows."""
    batch = tools["padded"]([ids for ids, _ in rows], side)
    images = torch.cat([images for _, images in rows])
    return {**batch, **({"pixel_values": images} if len(images) else {})}


@EVERY
@pytest.mark.parametrize(("side", "attention"), [("left", "sdpa"), ("right", "eager")])
def test_rows_of_a_batch_in_any_order_equal_single_prompts(model_of, tools, recipe, rows, side, attention):
    model, kept = model_of(attention), Kept()
    with headwise.attach(model, recipe(), observers=[kept]) as attached:
        alone = []
        for ids, images in rows:
            kept.found.clear()
            logits = model(input_ids=ids, pixel_values=images if len(images) else None).logits[0]
            alone.append((logits, kept.of(0)))
        for order in ((0, 1, 2, 3), (2, 3, 1, 0)):
            kept.found.clear()
            batch = together(tools, [rows[number] for number in order], side)
            positions = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
            logits = model(**batch, position_ids=positions).logits
            for place, number in enumerate(order):
                assert kept.of(place) == alone[number][1]
                own = logits[place][batch["attention_mask"][place].bool()]
                torch.testing.assert_close(own, alone[number][0], **CLOSE)
    stages = {stage.layer for stage in attached.plan.stages}
    assert [stages, stages, set(), stages] == [set(left) for _, left in alone]


@EVERY
def test_prompts_without_images_are_untouched(model_of, tools, recipe):
    model = model_of("sdpa")
    batch = tools["padded"]([tools["prompt"](7), tools["prompt"](3, seed=1)], "left")
    expected = model(**batch).logits
    with headwise.attach(model, recipe()):
        assert torch.equal(expected, model(**batch).logits)


@pytest.mark.parametrize("method", ["fastv", "divprune"])
def test_a_placeholder_that_the_model_itself_said_is_a_word(model_of, recipe, single):
    """Sampling gives one now and then; the stock model reads it as a word, for there is no image to go with it."""
    model = copy.deepcopy(model_of("sdpa"))
    model.get_input_embeddings().weight[7] = model.get_input_embeddings().weight[IMAGE]
    with headwise.attach(model, recipe()):
        cache = model(**single).past_key_values
        expected = model(input_ids=torch.full((1, 3), 7), past_key_values=copy.deepcopy(cache)).logits
        assert torch.equal(expected, model(input_ids=torch.full((1, 3), IMAGE), past_key_values=cache).logits)


@EVERY
@pytest.mark.parametrize(("positions", "attention"), [("keep", "sdpa"), ("compact", "eager")])
def test_a_conversation_equals_masked_keys(model_of, tools, recipe, positions, attention):
    """An image, a turn of text, another image: what the cached turns give, the slow reference gives in one piece."""
    model, images = model_of(attention), tools["pixels"](2)
    turns = [tools["prompt"](3, "image", 5), tools["prompt"](5, seed=1), tools["prompt"](2, "image", 4, seed=2)]
    cache, logits, starts = None, [], [0, 25, 31]
    with headwise.attach(model, recipe(positions=positions)) as attached:
        choices = Choices.watching(attached)
        for start, ids, pixels in zip(starts, turns, (images[:1], None, images[1:]), strict=True):
            choices.image_at(start + (FIRST if start == 0 else FIRST - 1))
            output = model(input_ids=ids, pixel_values=pixels, past_key_values=cache)
            cache = output.past_key_values
            logits.append(output.logits)
    whole, gone = torch.cat(turns, 1), {position for left in choices.gone.values() for position in left}
    expected = choices.logits(model, whole, images, compact=positions == "compact")
    left = [position for position in range(whole.shape[1]) if position not in gone]
    assert len(left) == whole.shape[1] - 2 * (VISUAL - KEEP)
    torch.testing.assert_close(torch.cat(logits, 1)[:, left], expected[:, left], atol=3e-5, rtol=1e-5)
    text = whole.shape[1] - 2 * VISUAL
    assert held(cache) == [text + 2 * count for count in attached.plan.processed]
    assert cache.get_seq_length() == whole.shape[1]


@EVERY
def test_the_cache_holds_the_bytes_that_the_plan_counts(model_of, recipe, single):
    model = model_of("sdpa")
    with headwise.attach(model, recipe()) as attached:
        cache = model(**single).past_key_values
    expected = [kv_bytes(attached.plan.geometry, [count], text=9, itemsize=4) for count in attached.plan.processed]
    assert expected == [
        sum(part.untyped_storage().nbytes() for part in (layer.keys, layer.values)) for layer in cache.layers
    ]


@EVERY
def test_generate_equals_masked_keys(model_of, recipe, single):
    model, options = model_of("eager"), {**OPTIONS, "do_sample": False, "max_new_tokens": 4}
    with headwise.attach(model, recipe()) as attached:
        choices = Choices.watching(attached)
        choices.image_at(FIRST)
        cached = model.generate(**single, **options)
    expected = choices.greedy(model, single["input_ids"], single["pixel_values"], steps=4)
    assert expected == cached[0, 25:].tolist()


@pytest.mark.parametrize("method", BY_IMAGE)
@pytest.mark.parametrize("beams", [1, 3])
def test_generating_without_a_cache_gives_the_same(model_of, recipe, single, beams):
    model, options = model_of("sdpa"), {**OPTIONS, "do_sample": False, "max_new_tokens": 4, "num_beams": beams}
    with headwise.attach(model, recipe()):
        cached = model.generate(**single, **options)
        afresh = model.generate(**single, **options, use_cache=False)
    assert afresh.tolist() == cached.tolist()


@EVERY
def test_beams_of_a_batch_equal_those_of_single_prompts(model_of, tools, recipe, rows):
    model, options = model_of("sdpa"), {**OPTIONS, "do_sample": False, "max_new_tokens": 4, "num_beams": 3}
    with headwise.attach(model, recipe()):
        found = model.generate(**together(tools, rows, "left"), **options)[:, -4:].tolist()
        alone = [model.generate(**together(tools, [row], "left"), **options)[0, -4:].tolist() for row in rows]
    assert alone == found


@pytest.mark.parametrize("method", ["divprune", "fastv", "sparsevlm"])
@pytest.mark.parametrize("pick", ["reorder_cache", "batch_select_indices"])
def test_rows_picked_of_a_cache_go_on_with_what_they_kept(model_of, tools, recipe, rows, method, pick):
    """Beams of one prompt may part ways where rounding breaks a tie, and a caller may pick rows of any prompts."""
    model, batch, following = model_of("sdpa"), together(tools, rows[:2], "left"), torch.tensor([[7], [9]])
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
    with headwise.attach(model, recipe()):
        cache = model(**batch).past_key_values
        again = copy.deepcopy(cache)
        expected = model(input_ids=following, attention_mask=mask, past_key_values=cache).logits
        getattr(again, pick)(torch.tensor([1, 0]))
        found = model(input_ids=following.flip(0), attention_mask=mask.flip(0), past_key_values=again).logits
    torch.testing.assert_close(found, expected.flip(0), **CLOSE)


@EVERY
def test_sampling_with_a_seed_repeats_itself(model_of, recipe, single):
    model, found = model_of("sdpa"), []
    with headwise.attach(model, recipe()):
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            options = {**OPTIONS, "do_sample": True, "top_k": 0, "max_new_tokens": 12}
            found.append(model.generate(**single, **options)[0, 25:].tolist())
    assert found[0] == found[1] != found[2]


@EVERY
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_keeping_everything_is_bit_identical(model_of, recipe, single, kv_heads):
    model = model_of("sdpa", torch.float32, kv_heads)
    expected = model(**single).logits
    with headwise.attach(model, recipe(keep=VISUAL)):
        assert torch.equal(expected, model(**single).logits)


@EVERY
@pytest.mark.parametrize(
    ("keep", "kv_heads", "dtype"),
    [(1, 1, torch.float32), (VISUAL - 1, 4, torch.float32), (7, 1, torch.float16), (3, 2, torch.bfloat16)],
)
def test_any_count_is_kept_with_any_heads_in_any_precision(model_of, recipe, single, keep, kv_heads, dtype):
    model = model_of("sdpa", dtype, kv_heads)
    with headwise.attach(model, recipe(keep)) as attached:
        output = model(**{**single, "pixel_values": single["pixel_values"].to(dtype)})
    assert attached.plan.kept == keep
    assert held(output.past_key_values) == [9 + count for count in attached.plan.processed]
    assert output.logits.dtype == dtype
    assert torch.isfinite(output.logits).all()


@pytest.fixture
def blank(made, model_of):
    """A model that makes the same of every patch of an even image, and nothing at all of a black one."""
    if "blank" not in made:
        model = copy.deepcopy(model_of("sdpa"))
        for name, weight in model.named_parameters():
            if "position_embedding" in name or ("projector" in name and name.endswith("bias")):
                weight.zero_()
        made["blank"] = model
    return made["blank"]


@EVERY
@pytest.mark.parametrize("colour", [0.0, 0.7])
def test_even_images_are_no_trouble(blank, recipe, single, colour):
    single["pixel_values"] = torch.full_like(single["pixel_values"], colour)
    features = torch.cat(list(blank.get_image_features(pixel_values=single["pixel_values"], return_dict=True)[1]))
    torch.testing.assert_close(features, features[:1].expand_as(features), **CLOSE)
    with headwise.attach(blank, recipe()) as attached:
        output = blank(**single)
    assert torch.isfinite(output.logits).all()
    assert held(output.past_key_values) == [9 + count for count in attached.plan.processed]


@EVERY
def test_nothing_is_left_behind(model_of, recipe, single):
    model = model_of("eager")
    expected = model(**single).logits
    before = marks(model)  # behind the first forward, in which transformers adds hooks of its own
    with headwise.attach(model, recipe()):
        assert not torch.equal(expected, model(**single).logits)

    def fail(*_):
        raise RuntimeError("a broken strategy")

    def run_broken():
        with headwise.attach(model, recipe()) as attached:
            attached.pipeline.select = fail
            model(**single)

    with pytest.raises(RuntimeError, match="a broken strategy"):
        run_broken()
    assert before == marks(model)
    assert torch.equal(expected, model(**single).logits)
