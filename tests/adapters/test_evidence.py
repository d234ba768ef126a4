"""What a stage is shown equals what the stock model computes with attention maps and hidden states switched on."""

from __future__ import annotations

import math

import pytest
import torch
from tests.reference import masked_llava as reference
from transformers import LlavaForConditionalGeneration, SiglipVisionConfig

from headwise import Pipeline, PruningPlan, Recipe, Stage
from headwise.attachment import adapter_for
from headwise.eviction import everything
from headwise.plan import Merged

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
LAYER = 2
VISUAL = 16


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def pruned(adapter, pipeline, stages):
    """What prunes by some stages and keeps all entries."""
    return adapter.attached(pipeline, PruningPlan(adapter.geometry, stages), everything(adapter.geometry))


def run(model, inputs, select, *texts, layer=LAYER, keep=VISUAL - 1, reads=(), per_image=False, forward=None):
    """One forward with a single stage; what it gives."""
    adapter = adapter_for(model)
    stage = Stage(layer, keep, select, reads=reads, per_image=per_image)
    pipeline = Pipeline(Recipe.of(*texts))
    with pruned(adapter, pipeline, (stage,)):
        return (forward or model)(**inputs)


def shown(model, inputs, look, *texts, **kwargs):
    """What ``look`` makes of the evidence, group by group."""
    seen = []

    def select(evidence):
        seen.append(look(evidence))
        return torch.arange(evidence.keep).expand(evidence.batch, -1)

    run(model, inputs, select, *texts, **kwargs)
    return seen


@pytest.fixture
def inputs(tools):
    return {"input_ids": tools["prompt"](3, "image", 5), "pixel_values": tools["pixels"](1)}


@pytest.fixture
def whole(tools, inputs):
    """The stock eager model with everything it can tell."""
    eager = tools["tiny_llava"]("eager")
    return eager(**inputs, output_attentions=True, output_hidden_states=True)


IMAGE = slice(4, 20)  # begin-of-sequence and three words precede the image
TEXT = slice(20, 25)


@pytest.mark.parametrize(("kind", "layer"), [("attention", LAYER - 1), ("own", LAYER)])
def test_attention_of_a_layer_equals_its_eager_map(model, inputs, whole, kind, layer):
    expected = whole.attentions[layer][:, :, -1, IMAGE]
    found = shown(model, inputs, lambda e: e.head_attention(kind), reads=(kind,))
    torch.testing.assert_close(found[0], expected, **CLOSE)


@pytest.mark.parametrize(("kind", "layer"), [("attention", LAYER - 1), ("own", LAYER)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_attention_of_a_padded_batch_equals_single_prompts(model, tools, kind, layer, side):
    rows = [tools["prompt"](3, "image", 5, seed=1), tools["prompt"](2, "image", 9, seed=2)]
    images, eager = tools["pixels"](2), tools["tiny_llava"]("eager")
    expected = []
    for row, image in zip(rows, images, strict=True):
        maps = eager(input_ids=row, pixel_values=image[None], output_attentions=True).attentions
        expected.append(maps[layer][0, :, -1][:, row[0] == model.config.image_token_id])
    batch = {**tools["padded"](rows, side), "pixel_values": images}
    found = shown(model, batch, lambda e: e.head_attention(kind), reads=(kind,))
    torch.testing.assert_close(found[0], torch.stack(expected), **CLOSE)


def test_own_attention_behind_an_earlier_stage_looks_at_what_is_left(model, tools, inputs):
    """A second stage's own attention equals that of a model whose dropped keys are masked."""
    kept, seen = [0, 3, 5, 8, 13], []

    def second(evidence):
        seen.append(evidence.head_attention("own"))
        return torch.arange(evidence.keep).expand(evidence.batch, -1)

    stages = (
        Stage(1, 5, lambda e: torch.tensor([kept])),
        Stage(3, 4, second, reads=("own",)),
    )
    adapter = adapter_for(model)
    with pruned(adapter, Pipeline(Recipe.of()), stages):
        model(**inputs)
    gone = torch.tensor([4 + j for j in range(VISUAL) if j not in kept])
    expected = reference.masked_attention(model, inputs["input_ids"], inputs["pixel_values"], [(1, gone)], layer=3)
    columns = torch.tensor([4 + j for j in kept])
    torch.testing.assert_close(seen[0][0], expected[0, :, -1][:, columns], **CLOSE)


def test_unrotated_attention_equals_a_softmax_written_out(model, inputs, whole):
    layer = model.model.language_model.layers[LAYER - 1]
    states = layer.input_layernorm(whole.hidden_states[LAYER - 1])[0]
    heads, kv_heads, width = 4, 2, 8
    query, key = layer.self_attn.q_proj(states), layer.self_attn.k_proj(states)
    expected = []
    for head in range(heads):
        own = head // (heads // kv_heads)
        asked = query[-1, head * width : (head + 1) * width]
        products = [math.exp(float(asked @ row[own * width : (own + 1) * width]) / math.sqrt(width)) for row in key]
        expected.append([products[j] / sum(products) for j in range(IMAGE.start, IMAGE.stop)])
    found = shown(model, inputs, lambda e: e.head_attention("unrotated"), reads=("unrotated",))
    torch.testing.assert_close(found[0][0], torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_unbiased_attention_is_divided_by_what_positions_alone_would_give(model, tools):
    inputs = {"input_ids": tools["prompt"](3, "image", 26), "pixel_values": tools["pixels"](1)}
    whole = tools["tiny_llava"]("eager")(**inputs, output_attentions=True)
    width, base, last = 8, 10000.0, 45
    frequencies = [base ** (-2 * k / width) for k in range(width // 2)]
    bias = [
        max(0.05, sum(2 * math.cos((last - j) * f) for f in frequencies) / width)
        for j in range(IMAGE.start, IMAGE.stop)
    ]
    assert min(bias) == 0.05  # the guard is at work
    expected = whole.attentions[LAYER - 1][:, :, -1, IMAGE] / torch.tensor(bias)
    found = shown(model, inputs, lambda e: e.head_attention("unbiased"), reads=("unbiased",))
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-4)


def test_hidden_states_text_and_keys_are_those_of_the_model(model, inputs, whole):
    def look(evidence):
        return evidence.hidden(), *evidence.text(), evidence.keys(), *evidence.text_keys()

    hidden, text, real, keys, text_keys, _ = shown(model, inputs, look, reads=("keys",))[0]
    torch.testing.assert_close(hidden, whole.hidden_states[LAYER][:, IMAGE], **CLOSE)
    torch.testing.assert_close(text, whole.hidden_states[LAYER][:, TEXT], **CLOSE)
    assert real.all()
    cached = whole.past_key_values.layers[LAYER - 1].keys.transpose(1, 2).flatten(2)
    torch.testing.assert_close(keys, cached[:, IMAGE], **CLOSE)
    torch.testing.assert_close(text_keys, cached[:, TEXT], **CLOSE)


def test_text_of_shorter_rows_is_marked(model, tools):
    rows = [tools["prompt"](3, "image", 2), tools["prompt"](1, "image", 6)]
    batch = {**tools["padded"](rows, "right"), "pixel_values": tools["pixels"](2)}
    _, real = shown(model, batch, lambda e: e.text())[0]
    assert real.tolist() == [[True, True, False, False, False, False], [True] * 6]


def test_the_vision_tower_tells_features_saliency_and_keys(model, tools, inputs):
    def look(evidence):
        return evidence.features(), evidence.saliency(), evidence.vision_keys()

    features, saliency, keys = shown(model, inputs, look, reads=("vision",), per_image=True, layer=0)[0]
    tower = tools["tiny_llava"]("eager").model.vision_tower
    told = tower(inputs["pixel_values"], output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(features, told.hidden_states[-2][:, 1:], **CLOSE)
    torch.testing.assert_close(saliency, told.attentions[-2].mean(1)[:, 0, 1:], **CLOSE)
    layers = next(part for name, part in tower.named_modules() if name.endswith("encoder.layers"))
    states = layers[0].layer_norm1(told.hidden_states[0])
    expected = layers[0].self_attn.k_proj(states).view(1, 17, 2, 8).mean(2)[:, 1:]
    torch.testing.assert_close(keys, expected, **CLOSE)


def test_pictures_of_several_prompts_keep_their_own_features(model, tools):
    rows = [tools["prompt"](1, "image", 2, "image", 3), tools["prompt"](2, 3), tools["prompt"](4, "image", 1)]
    images = tools["pixels"](3)
    batch = {**tools["padded"](rows, "left"), "pixel_values": images}
    found = shown(model, batch, lambda e: e.features(), reads=("vision",), per_image=True, layer=0)
    hidden = model.model.vision_tower(images, output_hidden_states=True).hidden_states[-2][:, 1:]
    torch.testing.assert_close(torch.cat(found), hidden, **CLOSE)
    grids = shown(model, batch, lambda e: e.grid, per_image=True, layer=0)
    assert grids == [(4, 4)]
    by_row = shown(model, batch, lambda e: (e.visual, e.features()), reads=("vision",), layer=0)
    assert {visual for visual, _ in by_row} == {16, 32}
    double = next(features for visual, features in by_row if visual == 32)
    torch.testing.assert_close(double[0], hidden[:2].flatten(0, 1), **CLOSE)


def test_generate_shows_the_tower_and_beams_share_their_picture(model, tools):
    rows = [tools["prompt"](1, "image", 2), tools["prompt"](4, "image", 5)]  # 5.17 mixes up several images of beams
    images = tools["pixels"](2)
    batch = {**tools["padded"](rows, "left"), "pixel_values": images}

    def beams(**inputs):
        return model.generate(**inputs, max_new_tokens=2, num_beams=2, do_sample=False, pad_token_id=0)

    found = shown(
        model, batch, lambda e: (e.features(), e.seeds()), reads=("vision",), per_image=True, layer=0, forward=beams
    )
    hidden = model.model.vision_tower(images, output_hidden_states=True).hidden_states[-2][:, 1:]
    features, seeds = found[0]
    torch.testing.assert_close(features, hidden[[0, 0, 1, 1]], **CLOSE)
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def test_features_made_elsewhere_are_refused_where_the_tower_is_asked(model, tools, inputs):
    features = model.get_image_features(pixel_values=inputs["pixel_values"], return_dict=True)
    given = {"input_ids": inputs["input_ids"], "mm_encoder_outputs": {"image": features}}
    with pytest.raises(Exception, match=r"were made elsewhere.*give the model pixel_values inside"):
        shown(model, given, lambda e: e.saliency(), reads=("vision",), layer=0)


def test_evidence_that_is_not_announced_is_refused(model, inputs):
    for look in (lambda e: e.attention(), lambda e: e.keys(), lambda e: e.features()):
        with pytest.raises(Exception, match="does not say so"):
            shown(model, inputs, look)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("compact", [False, True])
def test_merged_tokens_go_on_as_weighted_sums(model, inputs, layer, compact):
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(1, 3, VISUAL, generator=generator).softmax(-1)
    places = torch.tensor([[2, 9, 14]])
    adapter = adapter_for(model)
    stage = Stage(layer, 3, lambda e: Merged(places.flip(1), weights.flip(1)))
    recipe = Recipe.of(positions="compact" if compact else "keep")
    with pruned(adapter, Pipeline(recipe), (stage,)):
        found = model(**inputs).logits
    gone = torch.tensor([4 + j for j in range(VISUAL) if j not in (2, 9, 14)])
    merges = {layer: (places[0] + 4, weights[0], torch.arange(IMAGE.start, IMAGE.stop))}
    args = (model, inputs["input_ids"], inputs["pixel_values"], [(layer, gone)])
    expected = reference.masked_logits(*args, compact=compact, merges=merges)
    left = [p for p in range(25) if p not in set(gone.tolist())]
    torch.testing.assert_close(found[:, left], expected[:, left], atol=1e-5, rtol=1e-5)
    unmerged = reference.masked_logits(*args, compact=compact)
    assert not torch.allclose(unmerged[:, -1], expected[:, -1], atol=1e-3)


def test_merging_in_one_row_leaves_the_others_alone(model, tools):
    """Rows of different sizes: each merges its own tokens, as it does alone."""
    rows = [tools["prompt"](3, "image", 5, seed=1), tools["prompt"](2, "image", 3, "image", 4, seed=2)]
    images = tools["pixels"](3)

    def select(evidence):
        weights = evidence.hidden().float().mean(-1).softmax(-1).unsqueeze(1).repeat(1, evidence.keep, 1)
        weights = weights.roll(1, dims=-1) + torch.eye(evidence.keep, evidence.visual)
        return Merged(torch.arange(evidence.keep).expand(evidence.batch, -1), weights / 2)

    together = run(model, {**tools["padded"](rows, "left"), "pixel_values": images}, select, keep=5).logits
    for row, own in zip(range(2), (images[:1], images[1:]), strict=True):
        alone = run(model, {"input_ids": rows[row], "pixel_values": own}, select, keep=5).logits
        length = rows[row].shape[1]
        torch.testing.assert_close(together[row, -length:], alone[0], atol=5e-5, rtol=1e-5)


def test_each_image_of_a_prompt_keeps_its_share(model, tools):
    ids = tools["prompt"](1, "image", 2, "image", 3)
    stages = []

    def select(evidence):
        stages.append((evidence.batch, evidence.visual, evidence.keep))
        return torch.tensor([[0, 1, 5], [2, 3, 4]])

    logits = run(
        model, {"input_ids": ids, "pixel_values": tools["pixels"](2)}, select, per_image=True, layer=0, keep=3
    ).logits
    assert stages == [(2, 16, 3)]
    image = [p for p in range(ids.shape[1]) if ids[0, p] == model.config.image_token_id]
    kept = [image[j] for j in (0, 1, 5, 16 + 2, 16 + 3, 16 + 4)]
    gone = torch.tensor([p for p in image if p not in kept])
    expected = reference.masked_logits(model, ids, tools["pixels"](2), [(0, gone)])
    left = [p for p in range(ids.shape[1]) if p not in set(gone.tolist())]
    torch.testing.assert_close(logits[:, left], expected[:, left], atol=1e-5, rtol=1e-5)


def hooked(model):
    """How many hooks each module has."""
    return [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()]


def test_everything_is_taken_off_again(model, inputs):
    before = model(**inputs).logits
    hooks = hooked(model)  # transformers keeps hooks of its own
    names = {name: set(vars(part)) for name, part in model.named_modules()}
    configs = {name: id(part.config) for name, part in model.named_modules() if hasattr(part, "config")}
    shown(model, inputs, lambda e: e.saliency(), reads=("vision",), layer=0)
    shown(model, inputs, lambda e: e.head_attention("unrotated"), reads=("unrotated", "own", "keys"))
    assert names == {name: set(vars(part)) for name, part in model.named_modules()}
    assert configs == {name: id(part.config) for name, part in model.named_modules() if hasattr(part, "config")}
    assert hooks == hooked(model)
    torch.testing.assert_close(model(**inputs).logits, before, atol=0, rtol=0)


def test_a_tower_without_a_class_token_is_salient_where_all_patches_look(attention, tools):
    config = tools["tiny_llava"](attention).config
    config.vision_config = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=4,
        vision_use_head=False,
    )  # fmt: skip
    config.vision_feature_select_strategy = "full"
    config._attn_implementation = attention
    torch.manual_seed(1)
    model = LlavaForConditionalGeneration(config).eval()
    for weight in model.model.vision_tower.parameters():
        weight.normal_(0, 0.4)
    inputs = {"input_ids": tools["prompt"](3, "image", 5), "pixel_values": tools["pixels"](2)[:1]}
    saliency, features = shown(
        model, inputs, lambda e: (e.saliency(), e.features()), reads=("vision",), per_image=True, layer=0
    )[0]
    tower = model.model.vision_tower
    tower.set_attn_implementation("eager")
    told = tower(inputs["pixel_values"], output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(features, told.hidden_states[-2], **CLOSE)
    torch.testing.assert_close(saliency, told.attentions[-2].mean(dim=(1, 2)), **CLOSE)
