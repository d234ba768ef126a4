"""LLaVA-NeXT: which crop every visual token comes from, and what per-image methods and eviction make of that."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.stages import Watch, check_rows_of_a_batch_equal_single_rows, one_stage
from tests.adapters.vision_models import batch, next_prompt, tiny_next

import headwise
from headwise.attachment import adapter_for
from headwise.families import geometry_of, shape
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CROP = 16  # tokens
SIZES = [(30, 20), (16, 40), (32, 32), (16, 16), (7, 48), (47, 3), (10, 11), (33, 17), (9, 31)]


@pytest.fixture(scope="module")
def model():
    return tiny_next("sdpa")


class Labels(torch.nn.Module):
    """In place of a projector: the number of each patch among all patches of the batch, plus 1, in every channel."""

    def forward(self, features):
        count, patches, _ = features.shape
        return (torch.arange(count * patches).view(count, patches, 1) + 1.0).expand(-1, -1, 32)


def labelled(model, images):
    """For each image, what the model itself puts at every visual token: label of a patch, or 0 for a newline."""
    own, newline = model.model.multi_modal_projector, model.model.image_newline.data
    model.model.multi_modal_projector, model.model.image_newline.data = Labels(), torch.zeros(32)
    try:
        found = model.get_image_features(**images, return_dict=True).pooler_output
    finally:
        model.model.multi_modal_projector, model.model.image_newline.data = own, newline
    return [[int(label) for label in tokens[:, 0]] for tokens in found]


@pytest.mark.parametrize("sizes", [*([size] for size in SIZES), SIZES[:3], [SIZES[4], SIZES[3], SIZES[5]]], ids=str)
def test_every_token_comes_from_the_patch_that_the_model_puts_there(model, sizes):
    images = next_prompt(model, *sizes).images
    expected = labelled(model, images)
    pictures = adapter_for(model).decoder.pictures(images)
    assert [len(labels) for labels in expected] == [picture.visual for picture in pictures]
    for labels, picture in zip(expected, pictures, strict=True):
        found = [0] * picture.visual
        for piece in picture.pieces:
            for token, patch in zip(piece.tokens.tolist(), piece.patches.tolist(), strict=True):
                found[token] = piece.source * CROP + patch + 1
        assert found == labels


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_grids_are_rows_and_columns_of_what_is_left_of_a_crop(model, size):
    (picture,) = adapter_for(model).decoder.pictures(next_prompt(model, size).images)
    assert picture.pieces[0].grid == (4, 4)
    for piece in picture.pieces:
        rows, columns = piece.grid
        places = [(patch // 4, patch % 4) for patch in piece.patches.tolist()]
        top, left = places[0]
        assert places == [(top + i // columns, left + i % columns) for i in range(rows * columns)]


def test_pictures_tell_pixels_apart_whatever_batch_they_come_in(model):
    prompts = [next_prompt(model, (16, 16), seed=1), next_prompt(model, (32, 32), seed=2)]
    together = adapter_for(model).decoder.pictures(batch(prompts, "left"))
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = adapter_for(model).decoder.pictures(prompt.images)
        assert torch.equal(alone.pixels, found.pixels)
    assert [len(picture.pixels) for picture in together] == [2, 5]


def test_crops_of_all_images_may_come_stacked(model):
    images = next_prompt(model, (16, 16), (32, 32)).images
    five = adapter_for(model).decoder.pictures(images)
    stacked = torch.cat([images["pixel_values"][0, :2], images["pixel_values"][1, :5]])
    four = adapter_for(model).decoder.pictures({**images, "pixel_values": stacked})
    for one, other in zip(five, four, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert [piece.source for piece in one.pieces] == [piece.source for piece in other.pieces]


def test_budgets_count_the_image_with_the_most_crops_attached_by_folder_and_by_name(model, tmp_path):
    assert adapter_for(model).geometry.visual_tokens == 5 * CROP
    model.config.save_pretrained(tmp_path)
    assert geometry_of(str(tmp_path)).visual_tokens == 5 * CROP
    assert shape("llava-next-7b").visual_tokens == shape("llava-1.6-vicuna-7b").visual_tokens == 5 * 576


@pytest.mark.parametrize(("size", "pictures"), [((16, 16), 2), ((32, 16), 3), ((48, 16), 4), ((32, 32), 5)])
def test_an_average_of_a_share_is_that_share_of_every_image(model, size, pictures):
    prompt, budget = next_prompt(model, 3, size, 5), 20  # of 80
    (selection,) = kept_by(model, "token_pruning=uniform:layer=0", prompt.inputs, tokens=budget)
    newlines = prompt.visual[0] - pictures * CROP
    assert selection.kept.shape[1] == int(prompt.visual[0] * budget / 80 + 0.5)
    assert newlines >= 0


def kept_by(model, text, inputs, **options):
    watch = Watch()
    with headwise.attach(model, Recipe.of(text, **options), observers=[watch]):
        model(**inputs)
    return watch.kept


def test_every_crop_keeps_its_own_share_and_newlines_stay(model):
    prompt = next_prompt(model, 3, (30, 20), 5)
    (selection,) = kept_by(model, "visionzip", prompt.inputs, keep=20)
    kept = set(selection.kept[0].tolist())
    (picture,) = adapter_for(model).decoder.pictures(prompt.images)
    shares = [len(kept & set(piece.tokens.tolist())) for piece in picture.pieces]
    assert shares == [max(1, int(len(piece.tokens) / 4 + 0.5)) for piece in picture.pieces]
    newlines = set(range(picture.visual)) - {token for piece in picture.pieces for token in piece.tokens.tolist()}
    assert newlines
    assert newlines <= kept


@pytest.mark.parametrize("text", ["visionzip", "vispruner", "divprune", "token_pruning=random:layer=0"])
def test_what_crops_keep_does_not_depend_on_the_batch(model, text):
    prompts = [next_prompt(model, 3, (30, 20), 5, seed=1), next_prompt(model, 2, (16, 40), (16, 16), 4, seed=2)]
    together = batch(prompts, "left")
    together["position_ids"] = (together["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    rows = {
        row: kept for of in kept_by(model, text, together, keep=20) for row, kept in zip(of.rows, of.kept, strict=True)
    }
    for row, prompt in enumerate(prompts):
        (alone,) = kept_by(model, text, prompt.inputs, keep=20)
        assert alone.kept[0].tolist() == rows[row].tolist()


def test_vision_evidence_is_that_of_the_crop_each_token_comes_from(model):
    found = []

    def look(evidence):
        found.append(evidence.features())
        return torch.arange(evidence.visual).expand(evidence.batch, -1).float()

    prompt = next_prompt(model, 3, (30, 20), 5)
    with headwise.attach(model, one_stage(look, 4, reads=("vision",))):
        model(**prompt.inputs)
    pixels = prompt.images["pixel_values"][0]
    states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:].flatten(0, 1)
    (labels,) = labelled(model, prompt.images)
    expected = torch.stack([states[label - 1] if label else torch.zeros(16) for label in labels])
    torch.testing.assert_close(found[0][0], expected)


def test_seeds_of_crops_do_not_depend_on_the_batch(model):
    seeds = []

    def look(evidence):
        seeds.extend(evidence.seeds().tolist())
        return torch.arange(evidence.visual).expand(evidence.batch, -1).float()

    prompts = [next_prompt(model, 3, (30, 20), 5, seed=1), next_prompt(model, 2, (16, 16), 4, seed=2)]
    together = batch(prompts, "left")
    with headwise.attach(model, one_stage(look, 4, per_image=True)):
        model(**together)
        of_both = sorted(seeds)
        seeds.clear()
        for prompt in prompts:
            model(**prompt.inputs)
    assert sorted(seeds) == of_both
    assert len(set(of_both)) == len(of_both) > 4


@pytest.mark.parametrize("text", ["streaming:sinks=2,window=9", "snapkv:budget=9,every=1,queries=8"])
def test_pruned_and_evicted_rows_of_a_batch_equal_single_rows(model, text):
    prompts = [next_prompt(model, 3, (16, 16), 5, seed=1), next_prompt(model, 2, (10, 11), 4, seed=2)]
    recipe = Recipe.of("token_pruning=uniform:layer=2", text, keep=20)
    check_rows_of_a_batch_equal_single_rows(model, recipe, prompts)
