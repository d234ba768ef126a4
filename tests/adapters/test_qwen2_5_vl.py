"""Qwen2.5-VL: images of any size, three axes of positions, a tower of windows, videos beside images, and eviction."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.adapters.stages import Watch, check_rows_of_a_batch_equal_single_rows, one_stage
from tests.adapters.vision_models import END, IMAGE, START, VIDEO, qwen_prompt, tiny_qwen
from tests.reference import masked_vlm as reference

import headwise
from headwise.attachment import adapter_for
from headwise.recipe import Recipe
from headwise_adapters.vision import qwen_tower

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 3e-5, "rtol": 1e-5}
TOWER = {"atol": 1e-5, "rtol": 1e-4}
SIZES = ((8, 6), (6, 10))


@pytest.fixture(scope="module")
def model():
    return tiny_qwen("sdpa")


def seen_by(model, inputs, look, layer=0, **settings):
    """What ``look`` made of the evidence of one stage, which keeps the first quarter of the visual tokens."""
    found = []

    def select(evidence):
        found.append(look(evidence))
        return -torch.arange(evidence.visual).expand(evidence.batch, -1).float()

    with headwise.attach(model, one_stage(select, 144, layer, **settings)):
        model(**inputs)
    return found[-1]


def looked_at(model, images):
    """Features, saliency and keys of the tower for a call of ``get_image_features``."""
    with adapter_for(model).decoder.tower.watched() as look, look() as seen:
        output = model.get_image_features(**images, return_dict=True)
        return seen.features(), seen.saliency(), seen.keys(), output.pooler_output


def test_pictures_have_the_tokens_and_grids_of_their_sizes(model):
    images = qwen_prompt(model, *SIZES, (4, 4)).images
    pictures = adapter_for(model).decoder.pictures(images)
    assert [picture.visual for picture in pictures] == [12, 15, 4]
    assert [picture.pieces[0].grid for picture in pictures] == [(4, 3), (3, 5), (2, 2)]
    assert torch.equal(torch.cat([picture.pixels for picture in pictures]), images["pixel_values"])
    assert [len(picture.pixels) for picture in pictures] == [48, 60, 16]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_features_are_what_the_merger_makes_tokens_of_in_their_order(attention):
    model = tiny_qwen(attention)
    features, _, _, expected = looked_at(model, qwen_prompt(model, *SIZES).images)
    assert [tuple(found.shape) for found in features] == [(12, 64), (15, 64)]
    for found, tokens in zip(features, expected, strict=True):
        torch.testing.assert_close(model.model.visual.merger(found.reshape(-1, 16)), tokens, **TOWER)


def overheard(model, images):
    """Per picture and token (row, column): attention its patches received, and their keys, patch by patch.

    Every chunk of the last block with full attention is overheard in the stock eager function; a patch is known by its
    rotary angles, which tell its row and column.
    """
    module = model.model.visual.blocks[1].attn
    modeling, chunks, tables = sys.modules[type(module).__module__], [], []
    stock = modeling.eager_attention_forward

    def listen(asked, query, key, value, **kwargs):
        output, weights = stock(asked, query, key, value, **kwargs)
        if asked is module:
            chunks.append((weights[0], key[0]))
        return output, weights

    handle = module.register_forward_pre_hook(
        lambda _, __, kwargs: tables.append(kwargs["position_embeddings"]), with_kwargs=True
    )
    modeling.eager_attention_forward = listen
    try:
        model.get_image_features(**images)
    finally:
        modeling.eager_attention_forward = stock
        handle.remove()
    cosines, sines = tables[-1]
    found, start = [], 0
    for weights, key in chunks:
        received, keys = {}, {}
        for patch in range(key.shape[1]):
            angles = torch.atan2(sines[start + patch], cosines[start + patch])
            row, column = round(100 * angles[1].item()), round(100 * angles[3].item())  # an axis turns by 0.01 a patch
            token = (row // 2, column // 2)
            received.setdefault(token, []).append(weights[:, :, patch].mean())
            keys.setdefault(token, []).append(key[:, patch].mean(0))
        found.append((received, keys))
        start += key.shape[1]
    return found


def test_saliency_and_keys_are_averages_over_heads_and_the_patches_of_a_token():
    model = tiny_qwen("eager")
    images = qwen_prompt(model, (8, 4), (4, 6)).images
    _, saliency, keys, _ = looked_at(model, images)
    expected = overheard(model, images)
    assert len(expected) == len(saliency) == 2
    for (received, of_tokens), found, found_keys in zip(expected, saliency, keys, strict=True):
        assert all(len(patches) == 4 for patches in received.values())
        tokens = sorted(received)  # row by row
        torch.testing.assert_close(
            found, torch.stack([torch.stack(received[token]).mean() for token in tokens]), **TOWER
        )
        means = torch.stack([torch.stack(of_tokens[token]).mean(0) for token in tokens])
        torch.testing.assert_close(found_keys, means, **TOWER)
        assert found.sum() * 4 == pytest.approx(1, abs=1e-5)


def test_saliency_computed_in_blocks_is_the_same(model, monkeypatch):
    images = qwen_prompt(model, *SIZES).images
    _, whole, _, _ = looked_at(model, images)
    monkeypatch.setattr(qwen_tower, "_LOGITS", 2 * 60 * 7)  # seven queries at a time
    _, blocks, _, _ = looked_at(model, images)
    for one, other in zip(whole, blocks, strict=True):
        torch.testing.assert_close(one, other, **TOWER)


def test_watching_changes_nothing_and_forgets(model):
    images = qwen_prompt(model, *SIZES).images
    expected = model.get_image_features(**images, return_dict=True).pooler_output
    with adapter_for(model).decoder.tower.watched() as look, look():
        found = model.get_image_features(**images, return_dict=True).pooler_output
        with look() as blind:
            pass
        for show in (blind.features, blind.saliency, blind.keys):
            with pytest.raises(headwise.ModelError, match="did not run where headwise could see it"):
                show()
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_vision_evidence_reaches_a_stage_in_the_order_of_the_tokens(model):
    prompt = qwen_prompt(model, 3, SIZES[0], 4, SIZES[1], 5)
    features, saliency, _, _ = looked_at(model, prompt.images)
    found, found_saliency = seen_by(
        model, prompt.inputs, lambda evidence: (evidence.features(), evidence.saliency()), reads=("vision",)
    )
    torch.testing.assert_close(found[0], torch.cat(features))
    torch.testing.assert_close(found_saliency[0], torch.cat(saliency))


@pytest.mark.parametrize(
    "text", ["visionzip", "vispruner", "divprune", "cdpruner", "sparsevlm", "pdrop", "feather", "dart"]
)
def test_published_methods_run_and_keep_their_share(model, text):
    prompt, watch = qwen_prompt(model, 3, SIZES[0], 5), Watch()
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    with headwise.attach(model, Recipe.of(text, keep=144), observers=[watch]):
        out = model.generate(**prompt.inputs, **options)
    assert watch.kept[-1].kept.shape[1] == 3
    assert out.shape[1] == prompt.ids.shape[1] + 3


def test_videos_are_left_as_they_are_and_not_taken_for_images(model):
    prompt = qwen_prompt(model, 3, SIZES[0], 4)
    pixels = torch.randn(2 * 16, 24, generator=torch.Generator().manual_seed(7))
    video = {"pixel_values_videos": pixels, "video_grid_thw": torch.tensor([[2, 4, 4]])}
    ids = torch.cat([prompt.ids, torch.tensor([[START, *[VIDEO] * 8, END, 7, 9]])], dim=1)
    kinds = (ids == IMAGE).int() + 2 * (ids == VIDEO).int()
    inputs = {"input_ids": ids, "mm_token_type_ids": kinds, **prompt.images, **video}
    stock = model(**inputs).logits
    expected = torch.cat(looked_at(model, prompt.images)[0])
    found = seen_by(model, inputs, lambda evidence: evidence.features(), reads=("vision",))
    torch.testing.assert_close(found[0], expected)
    with headwise.attach(model, Recipe.of("token_pruning=uniform:layer=2", keep=144)):
        logits = model(**inputs).logits
    gone = [p for number, p in enumerate(prompt.columns) if number not in (2, 6, 10)]
    assert [p for p in range(ids.shape[1]) if not logits[0, p].any()] == gone
    assert (logits - stock)[:, -1].abs().max() > 1e-3


def test_compact_positions_are_refused_in_a_sentence(model):
    with (
        pytest.raises(headwise.ModelError, match=r"have three axes \(time, height, width\); use positions=keep"),
        headwise.attach(model, Recipe.of("token_pruning=uniform:layer=2", keep=144, positions="compact")),
    ):
        pass


def test_new_images_in_a_later_turn_are_pruned_alone(model):
    first, second = qwen_prompt(model, 3, SIZES[0], 5), qwen_prompt(model, 2, SIZES[1], 4, seed=3)
    whole = {"input_ids": torch.cat([first.ids, second.ids], 1)}
    offset, options = first.ids.shape[1], {"do_sample": False, "eos_token_id": None, "max_new_tokens": 3}
    images = {name: torch.cat([first.images[name], second.images[name]]) for name in first.images}
    kept = {2, 6, 10}, {1, 5, 9, 13}
    gone = [p for number, p in enumerate(first.columns) if number not in kept[0]]
    gone += [offset + p for number, p in enumerate(second.columns) if number not in kept[1]]
    positions = reference.positions(model, whole["input_ids"], images)
    expected = reference.masked_greedy(model, whole["input_ids"], images, [(2, torch.tensor(gone))], 3)
    with headwise.attach(model, Recipe.of("token_pruning=uniform:layer=2", keep=144)):
        cache = model(**first.inputs).past_key_values
        step = model(
            input_ids=second.ids, position_ids=positions[:, :, offset:], past_key_values=cache, **second.images
        )
        found = [step.logits[:, -1].argmax(-1)]
        place = positions.max() + 1
        for number in range(options["max_new_tokens"] - 1):
            where = (place + number).expand(3, 1, 1)
            step = model(input_ids=found[-1][None], position_ids=where, past_key_values=cache)
            found.append(step.logits[:, -1].argmax(-1))
    assert torch.stack(found, 1).tolist() == expected.tolist()


# ---- eviction ----

ORIGINAL = "streaming:sinks=2,window=9,positions=original"


@pytest.mark.parametrize("pruning", [None, "token_pruning=uniform:layer=2"])
@pytest.mark.parametrize(
    "text", [ORIGINAL, "snapkv:budget=9,every=1,queries=8", "h2o:budget=9,every=2", "keydiff:budget=9"]
)
def test_evicted_rows_of_a_batch_equal_single_rows(model, text, pruning):
    prompts = [qwen_prompt(model, 3, SIZES[0], 8, seed=1), qwen_prompt(model, 2, SIZES[1], 4, seed=2)]
    recipe = Recipe.of(pruning, text, keep=144) if pruning else Recipe.of(text)
    check_rows_of_a_batch_equal_single_rows(model, recipe, prompts)


@pytest.mark.parametrize(
    "text", ["streaming:sinks=2,window=500,positions=original", "snapkv:budget=400", "tova:budget=400"]
)
def test_evicting_nothing_equals_the_stock_model(model, text):
    prompt = qwen_prompt(model, 3, SIZES[0], 8)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected = model(**prompt.inputs).logits
    continued = model.generate(**prompt.inputs, **options)
    with headwise.attach(model, Recipe.of(text)):
        torch.testing.assert_close(model(**prompt.inputs).logits, expected, **CLOSE)
        assert torch.equal(continued, model.generate(**prompt.inputs, **options))


def test_a_window_hides_what_it_says_and_moves_nothing(model):
    prompt = qwen_prompt(model, 3, SIZES[0], 8)
    length = prompt.ids.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen &= (torch.arange(length) < 2) | (torch.arange(length)[:, None] - torch.arange(length) < 9)
    mask = torch.zeros(length, length).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
    positions = reference.positions(model, prompt.ids, prompt.images)
    expected = model(**{**prompt.inputs, "attention_mask": {"full_attention": mask}}, position_ids=positions).logits
    with headwise.attach(model, Recipe.of(ORIGINAL)):
        torch.testing.assert_close(model(**prompt.inputs).logits, expected, **CLOSE)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("streaming:sinks=2,window=9", "use positions=original"),
        ("snapkv:budget=9,rerotate=true", "use rerotate=false"),
    ],
)
def test_eviction_that_moves_keys_is_refused_before_anything_runs(model, text, advice):
    with pytest.raises(headwise.ModelError, match=f"three axes.*{advice}"), headwise.attach(model, Recipe.of(text)):
        pass
    with pytest.raises(headwise.ModelError, match=f"three axes.*{advice}"):
        headwise.cache(model, Recipe.of(text))


def test_eviction_that_undoes_positions_is_refused_when_it_asks(model):
    prompt = qwen_prompt(model, 3, SIZES[0], 8)
    with (
        headwise.attach(model, Recipe.of("expected_attention:budget=6")),
        pytest.raises(headwise.ModelError, match=r"undoes rotary positions, .*three axes"),
    ):
        model(**prompt.inputs)
