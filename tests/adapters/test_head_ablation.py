"""Leaving heads out, against models whose output projection does not read the head, one prompt at a time."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.adapters.decoders import tiny
from torch import Tensor

from headwise import DataError, ModelError
from headwise_adapters.heads.ablation import Ablation, ablate

IMAGE, ANSWERS = 4, (1, 3)  # the token of images; tokens of the two rows' answers


@pytest.fixture
def rows(tools) -> list[Tensor]:
    """Prompts of different lengths, their answers behind them."""
    return [tools["prompt"](2, "image", 4), tools["prompt"]("image", 9, seed=1)]


def batch(tools, rows, side):
    """What the model is called with, and bool (b, n): which tokens are answers."""
    tensors = tools["padded"](rows, side)
    width = tensors["input_ids"].shape[1]
    answer = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (ids, count) in enumerate(zip(rows, ANSWERS, strict=True)):
        end = width if side == "left" else ids.shape[1]
        answer[row, end - count : end] = True
    return tensors | {"pixel_values": tools["pixels"](len(rows))}, answer


@torch.no_grad()
def loss(model, ids, pixels, count) -> float:
    """Nats of the last ``count`` tokens."""
    told = model(input_ids=ids, pixel_values=pixels).logits[0].double().log_softmax(dim=-1)
    return -sum(float(told[place - 1, ids[0, place]]) for place in range(ids.shape[1] - count, ids.shape[1]))


def without(model, layer, head):
    """A copy of the model that does not read one head."""
    changed = copy.deepcopy(model)
    changed.model.language_model.layers[layer].self_attn.o_proj.weight.data[:, 8 * head : 8 * head + 8] = 0
    return changed


@torch.no_grad()
def mass(model, ids, pixels, count, layer) -> list[float]:
    """Share of each head's attention that goes from the text behind the image to the image."""
    maps = model(input_ids=ids, pixel_values=pixels, output_attentions=True).attentions[layer][0]
    visual = (ids[0] == IMAGE).nonzero().flatten()
    asking = range(int(visual[-1]) + 1, ids.shape[1] - count)
    return [float(np.mean([head[query, visual].sum() for query in asking])) for head in maps]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_a_head_left_out_costs_what_a_model_without_it_loses(tools, rows, side, kv_heads):
    model = tools["tiny_llava"]("eager", kv_heads=kv_heads)
    tensors, answer = batch(tools, rows, side)
    found = ablate(model, tensors, answer, [1, 3])
    for row, (ids, count) in enumerate(zip(rows, ANSWERS, strict=True)):
        pixels = tensors["pixel_values"][row : row + 1]
        whole = loss(model, ids, pixels, count)
        assert whole == pytest.approx(found.loss[row], rel=1e-4)
        for place, layer in enumerate((1, 3)):
            rise = [loss(without(model, layer, head), ids, pixels, count) - whole for head in range(4)]
            np.testing.assert_allclose(rise, found.rise[row, place], atol=2e-4 * abs(whole))
            np.testing.assert_allclose(mass(model, ids, pixels, count, layer), found.mass[row, place], atol=1e-5)
    assert np.abs(found.rise).min(axis=0).max() > 0.01  # heads do matter in this model


def test_all_layers_find_what_each_finds_alone_whatever_the_attention(tools, rows, model):
    tensors, answer = batch(tools, rows, "left")
    steps = []
    together = ablate(model, tensors, answer, range(4), lambda: steps.append(1))
    assert len(steps) == 4 * 4
    for layer in range(4):
        alone = ablate(model, tensors, answer, [layer])
        np.testing.assert_array_equal(alone.rise[:, 0], together.rise[:, layer])
        np.testing.assert_array_equal(alone.mass[:, 0], together.mass[:, layer])


def state(model):
    """What ablation could leave behind: hooks, methods and configs."""
    return [
        (name, len(module._forward_pre_hooks), len(module._forward_hooks), "forward" in vars(module),
         id(getattr(module, "config", None)))
        for name, module in model.named_modules()
    ]  # fmt: skip


def test_the_model_is_as_it_was_also_after_an_interruption(tools, rows, model):
    tensors, answer = batch(tools, rows, "left")
    wanted = model(**tensors).logits  # transformers hooks the vision tower in its first forward
    before = state(model)

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(model, tensors, answer, [2], interrupt)
    assert before == state(model)
    assert torch.equal(wanted, model(**tensors).logits)


def test_joined_parts_are_the_prompts_in_order(tools, rows, model):
    tensors, answer = batch(tools, rows, "left")
    whole = ablate(model, tensors, answer, [0])
    parts = [
        ablate(model, {name: value[row : row + 1] for name, value in tensors.items()}, answer[row : row + 1], [0])
        for row in range(2)
    ]
    joined = Ablation.joined(parts)
    for name in ("loss", "rise", "mass"):
        np.testing.assert_allclose(getattr(whole, name), getattr(joined, name), atol=1e-4)


def test_a_prompt_without_an_image_is_refused(tools, model):
    tensors, answer = batch(tools, [tools["prompt"]("image", 4), tools["prompt"](30)], "left")
    with pytest.raises(DataError, match="a question has no picture"):
        ablate(model, tensors | {"pixel_values": tools["pixels"](1)}, answer, [0])


def test_a_language_model_is_refused():
    with pytest.raises(ModelError, match="sees no images; calibrate a vision-language model"):
        ablate(tiny("llama"), {}, torch.zeros(1, 1, dtype=torch.bool), [0])
