"""Dropping tokens equals masking their keys, in prefill, decode and generate, on eager and sdpa."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.adapters.stages import Watch
from tests.reference import masked_llava as reference

import headwise
from headwise.budget import kv_bytes
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def fastv(layer: int = 2, keep: int = 4, **settings) -> Recipe:
    return Recipe.of(f"fastv:layer={layer}", keep=keep, **settings)


def alive(ids, gone):
    """Positions that come out of the pruned model: everything but what was dropped."""
    return torch.tensor([p for p in range(ids.shape[1]) if p not in set(gone.tolist())])


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("parts", [(3, "image", 5), (2, "image", 4, "image", 6), (1, "image", 1)])
def test_prefill_equals_masked_keys(model, tools, layer, parts):
    ids = tools["prompt"](*parts)
    images = tools["pixels"](parts.count("image"))
    keep = 4 * parts.count("image")
    gone = reference.fastv_dropped(model, ids, images, layer, keep)
    expected = reference.masked_logits(model, ids, images, [(layer, gone)])
    with headwise.attach(model, fastv(layer)):
        pruned = model(input_ids=ids, pixel_values=images)
    left = alive(ids, gone)
    assert pruned.logits.shape == expected.shape
    torch.testing.assert_close(pruned.logits[:, left], expected[:, left], **CLOSE)
    lengths = [pruned.past_key_values.layers[i].keys.shape[2] for i in range(4)]
    assert lengths == [ids.shape[1]] * layer + [left.numel()] * (4 - layer)


def test_cache_holds_the_bytes_the_plan_counts(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    with headwise.attach(model, fastv()) as attached:
        cache = model(input_ids=ids, pixel_values=images).past_key_values
    stored = sum(part.untyped_storage().nbytes() for layer in cache.layers for part in (layer.keys, layer.values))
    expected = kv_bytes(attached.plan.geometry, attached.plan.processed, text=9, itemsize=4)
    assert expected == stored
    assert stored < kv_bytes(attached.plan.geometry, [16] * 4, text=9, itemsize=4)


def test_dropped_positions_come_out_as_zeros(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    gone = reference.fastv_dropped(model, ids, images, 2, 4)
    with headwise.attach(model, fastv()):
        logits = model(input_ids=ids, pixel_values=images).logits
    assert gone.numel() == 12
    assert not logits[0, gone].any()


def test_chosen_heads_decide(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    eager = tools["tiny_llava"]("eager")
    rows = eager(input_ids=ids, pixel_values=images, output_attentions=True).attentions[1][0, :, -1]
    image = ids[0] == model.config.image_token_id
    heads = rows[:, image].max(dim=-1).values.topk(2).indices.tolist()
    gone = reference.fastv_dropped(model, ids, images, 2, 4, heads)
    assert set(gone.tolist()) != set(reference.fastv_dropped(model, ids, images, 2, 4).tolist())
    expected = reference.masked_logits(model, ids, images, [(2, gone)])
    recipe = Recipe.of("fastv:layer=2", "max_attention", "fixed:heads=2", keep=4)
    with headwise.attach(model, recipe):
        pruned = model(input_ids=ids, pixel_values=images).logits
    torch.testing.assert_close(pruned[:, -5:], expected[:, -5:], **CLOSE)


@pytest.mark.parametrize("layer", [1, 2])
def test_decoding_equals_masked_keys(model, tools, layer):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    more = tools["prompt"](3, seed=5)
    gone = reference.fastv_dropped(model, ids, images, layer, 4)
    expected = reference.masked_logits(model, torch.cat([ids, more], 1), images, [(layer, gone)])
    with headwise.attach(model, fastv(layer)):
        output = model(input_ids=ids, pixel_values=images)
        for step in range(more.shape[1]):
            output = model(input_ids=more[:, step : step + 1], past_key_values=output.past_key_values)
            torch.testing.assert_close(output.logits[:, -1], expected[:, ids.shape[1] + step], **CLOSE)


def test_generate_equals_masked_keys_with_and_without_cache(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    recipe = Recipe.of("uniform:layer=2", keep=4)
    gone = torch.tensor([p for i, p in enumerate(range(4, 20)) if i not in (2, 6, 10, 14)])
    expected = reference.masked_greedy(model, ids, images, [(2, gone)], steps=6)
    with headwise.attach(model, recipe):
        inputs = {"input_ids": ids, "pixel_values": images, "attention_mask": torch.ones_like(ids)}
        cached = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
        afresh = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, use_cache=False)
    assert expected.tolist() == cached[:, ids.shape[1] :].tolist()
    assert expected.tolist() == afresh[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("recipe", ["fastv:layer=2", "token_pruning=random:layer=1", "uniform:layer=2"])
def test_padded_batch_rows_equal_single_rows(model, tools, side, recipe):
    rows = [
        tools["prompt"](3, "image", 5, seed=1),
        tools["prompt"](2, "image", 9, seed=2),
        tools["prompt"](25, seed=3),
        tools["prompt"](2, "image", 2, "image", 3, seed=4),
    ]
    images = [tools["pixels"](1, 1), tools["pixels"](1, 2), None, tools["pixels"](2, 4)]
    batch = tools["padded"](rows, side)
    position_ids = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    recipe = Recipe.of(recipe, "max_attention", "fixed:heads=2", keep=4)
    with headwise.attach(model, recipe):
        together = model(
            **batch, position_ids=position_ids, pixel_values=torch.cat([i for i in images if i is not None])
        )
        for number, (ids, image) in enumerate(zip(rows, images, strict=True)):
            alone = model(input_ids=ids, pixel_values=image).logits[0]
            own = together.logits[number][batch["attention_mask"][number].bool()]
            torch.testing.assert_close(own, alone, **CLOSE)


@pytest.mark.parametrize("text", ["fastv:layer=2", "token_pruning=random:layer=1"])
def test_left_padded_generation_equals_single_rows(model, tools, text):
    rows = [tools["prompt"](3, "image", 5, seed=1), tools["prompt"](2, "image", 9, seed=2), tools["prompt"](4, seed=3)]
    images = [tools["pixels"](1, 1), tools["pixels"](1, 2), None]
    batch = tools["padded"](rows, "left")
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    with headwise.attach(model, Recipe.of(text, keep=4)):
        together = model.generate(**batch, pixel_values=torch.cat(images[:2]), **options)
        for number, (ids, image) in enumerate(zip(rows, images, strict=True)):
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            alone = model.generate(**inputs, **({} if image is None else {"pixel_values": image}), **options)
            assert alone[0, ids.shape[1] :].tolist() == together[number, batch["input_ids"].shape[1] :].tolist()


def test_beams_follow_the_cache(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    options = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "eos_token_id": None}
    with headwise.attach(model, Recipe.of("uniform:layer=2", keep=4)):
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": images}
        cached = model.generate(**inputs, **options)
        afresh = model.generate(**inputs, **options, use_cache=False)
    assert afresh.tolist() == cached.tolist()
    assert cached.shape[1] == ids.shape[1] + 5


def test_second_turn_keeps_the_first_turns_choice(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    turn = tools["prompt"](6, seed=8)
    gone = reference.fastv_dropped(model, ids, images, 2, 4)
    expected = reference.masked_logits(model, torch.cat([ids, turn], 1), images, [(2, gone)])
    with headwise.attach(model, fastv()):
        first = model(input_ids=ids, pixel_values=images)
        again = copy.deepcopy(first.past_key_values)
        second = model(input_ids=turn, past_key_values=first.past_key_values)
        from_copy = model(input_ids=turn, past_key_values=again)
    torch.testing.assert_close(second.logits, expected[:, ids.shape[1] :], **CLOSE)
    torch.testing.assert_close(from_copy.logits, second.logits, atol=0, rtol=0)


@pytest.mark.parametrize("text", ["uniform:layer=2", "uniform:layer=0"])
def test_second_turn_of_generate_goes_on_from_the_first_turns_cache(model, tools, text):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    turn = tools["prompt"](6, seed=8)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    gone = torch.tensor([4 + i for i in range(16) if i not in (2, 6, 10, 14)])
    recipe = Recipe.of(text, keep=4)
    with headwise.attach(model, recipe) as attached:
        first = model.generate(
            input_ids=ids,
            pixel_values=images,
            attention_mask=torch.ones_like(ids),
            return_dict_in_generate=True,
            **options,
        )
        whole = torch.cat([first.sequences, turn], 1)
        second = model.generate(
            input_ids=whole, past_key_values=first.past_key_values, attention_mask=torch.ones_like(whole), **options
        )
    stages = [(attached.plan.stages[0].layer, gone)]
    expected = reference.masked_greedy(model, whole, images, stages, steps=4)
    assert second[:, whole.shape[1] :].tolist() == expected.tolist()


def test_second_turn_with_an_image_prunes_only_the_new_image(model, tools):
    first_ids, second_ids = tools["prompt"](3, "image", 5), tools["prompt"](2, "image", 4, seed=3)
    images = tools["pixels"](2)
    recipe = Recipe.of("uniform:layer=2", keep=4)
    kept = (2, 6, 10, 14)
    offset = first_ids.shape[1]
    gone = [4 + i for i in range(16) if i not in kept] + [offset + 3 + i for i in range(16) if i not in kept]
    expected = reference.masked_logits(model, torch.cat([first_ids, second_ids], 1), images, [(2, torch.tensor(gone))])
    with headwise.attach(model, recipe):
        first = model(input_ids=first_ids, pixel_values=images[:1])
        second = model(input_ids=second_ids, pixel_values=images[1:], past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits[:, -4:], expected[:, -4:], **CLOSE)
    assert second.past_key_values.layers[3].keys.shape[2] == offset + second_ids.shape[1] - 24


@pytest.mark.parametrize("name", ["uniform", "random"])
def test_pruning_before_the_language_model(model, tools, name):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    recipe = Recipe.of(f"token_pruning={name}:layer=0", keep=4)
    seen = []
    with headwise.attach(model, recipe, observers=[Watch(seen)]):
        inputs = {"input_ids": ids, "pixel_values": images, "attention_mask": torch.ones_like(ids)}
        generated = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    kept = set(seen[0].kept[0].tolist())
    gone = torch.tensor([4 + i for i in range(16) if i not in kept])
    expected = reference.masked_greedy(model, ids, images, [(0, gone)], steps=6)
    assert expected.tolist() == generated[:, ids.shape[1] :].tolist()


def test_compact_positions_renumber_the_survivors(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    turn = tools["prompt"](2, seed=9)
    recipe = Recipe.of("uniform:layer=2", keep=4, positions="compact")
    gone = torch.tensor([4 + i for i in range(16) if i not in (2, 6, 10, 14)])
    whole = torch.cat([ids, turn], 1)
    expected = reference.masked_logits(model, whole, images, [(2, gone)], compact=True)
    kept_ids = reference.masked_logits(model, whole, images, [(2, gone)])
    assert (expected - kept_ids)[:, -1].abs().max() > 1e-3
    with headwise.attach(model, recipe):
        first = model(input_ids=ids, pixel_values=images)
        torch.testing.assert_close(first.logits[:, -5:], expected[:, ids.shape[1] - 5 : ids.shape[1]], **CLOSE)
        second = model(input_ids=turn, past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits, expected[:, ids.shape[1] :], **CLOSE)


def test_compact_rows_of_a_padded_batch_equal_single_rows(model, tools):
    rows = [tools["prompt"](3, "image", 5, seed=1), tools["prompt"](6, "image", 9, seed=2)]
    images = [tools["pixels"](1, 1), tools["pixels"](1, 2)]
    batch = tools["padded"](rows, "left")
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with headwise.attach(model, fastv(positions="compact")):
        together = model.generate(**batch, pixel_values=torch.cat(images), **options)
        for number, (ids, image) in enumerate(zip(rows, images, strict=True)):
            alone = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=image, **options)
            assert alone[0, ids.shape[1] :].tolist() == together[number, batch["input_ids"].shape[1] :].tolist()


def test_keeping_everything_is_bit_identical(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    expected = model(input_ids=ids, pixel_values=images).logits
    for recipe in (fastv(keep=16), Recipe.of("token_pruning=none"), Recipe.of("token_pruning=random:layer=0", keep=16)):
        with headwise.attach(model, recipe):
            assert torch.equal(expected, model(input_ids=ids, pixel_values=images).logits)


@pytest.mark.parametrize("scorer", ["sum", "entropy", "graph_based", "hierarchical", "random"])
def test_all_heads_with_any_scorer_is_fastv(model, tools, scorer):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    with headwise.attach(model, fastv()):
        expected = model(input_ids=ids, pixel_values=images).logits
    with headwise.attach(model, Recipe.of("fastv:layer=2", f"head_scoring={scorer}", "fixed:heads=4", keep=4)):
        assert torch.equal(expected, model(input_ids=ids, pixel_values=images).logits)


def test_prompt_without_image_is_untouched(model, tools):
    ids = tools["prompt"](7)
    expected = model(input_ids=ids).logits
    with headwise.attach(model, fastv()):
        assert torch.equal(expected, model(input_ids=ids).logits)


def test_several_stages_equal_masked_keys(model, tools):
    from headwise.plan import PruningPlan, Stage

    class TwoStages:
        @headwise.hookimpl
        def token_pruning(self, geometry):
            first = Stage(1, 8, lambda e: torch.arange(e.visual).expand(1, -1).float())
            second = Stage(3, 4, lambda e: -torch.arange(e.visual).expand(1, -1).float())
            return PruningPlan(geometry, (first, second))

    from headwise.registry import Strategy

    base = Recipe.of("token_pruning=none")
    strategy = Strategy("token_pruning", "two_stages", "this test", TwoStages())
    recipe = Recipe(strategies={**base.strategies, "token_pruning": strategy}, budget=headwise.Budget(keep=4))
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    turn = tools["prompt"](3, seed=4)
    first_gone, second_gone = torch.arange(4, 12), torch.arange(16, 20)
    expected = reference.masked_logits(model, torch.cat([ids, turn], 1), images, [(1, first_gone), (3, second_gone)])
    with headwise.attach(model, recipe):
        first = model(input_ids=ids, pixel_values=images)
        second = model(input_ids=turn, past_key_values=first.past_key_values)
    torch.testing.assert_close(first.logits[:, -5:], expected[:, ids.shape[1] - 5 : ids.shape[1]], **CLOSE)
    torch.testing.assert_close(second.logits, expected[:, ids.shape[1] :], **CLOSE)


def test_labels_still_line_up(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    labels = ids.masked_fill(ids == model.config.image_token_id, -100)
    with headwise.attach(model, fastv()):
        output = model(input_ids=ids, pixel_values=images, labels=labels)
    shifted = output.logits[:, :-1].reshape(-1, output.logits.shape[-1])
    expected = torch.nn.functional.cross_entropy(shifted, labels[:, 1:].reshape(-1), ignore_index=-100)
    torch.testing.assert_close(output.loss, expected)


def test_bfloat16_keeps_the_same_tokens_as_its_own_eager_maps(tools, attention):
    model = tools["tiny_llava"](attention, torch.bfloat16)
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1).bfloat16()
    seen = []
    with headwise.attach(model, fastv(), observers=[Watch(seen)]):
        logits = model(input_ids=ids, pixel_values=images).logits
    assert logits.dtype == torch.bfloat16
    assert torch.isfinite(logits.float()).all()
    maps = tools["tiny_llava"]("eager")(input_ids=ids, pixel_values=images.float(), output_attentions=True).attentions
    expected = maps[1][0, :, -1, 4:20]
    assert seen[0].attention.dtype == torch.float32
    torch.testing.assert_close(seen[0].attention[0], expected, atol=0.03, rtol=0.1)
