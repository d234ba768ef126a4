"""Models whose weights accelerate keeps elsewhere until they are needed: every method gives what it gives without."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from tests.adapters.methods import IMAGE, METHODS, Kept, marks, recipe_of, write_weights

import headwise

pytestmark = [
    pytest.mark.usefixtures("no_grad"),
    # older transformers take meta, where weights that are elsewhere lie, for the device that the model computes on
    pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning"),
]
CLOSE = {"atol": 1e-6, "rtol": 1e-6}
OPTIONS = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "suppress_tokens": [IMAGE]}
MIXED = {
    "model.vision_tower": "disk",
    "model.multi_modal_projector": "cpu",
    "model.language_model.embed_tokens": "disk",
    **{f"model.language_model.layers.{layer}": "disk" if layer % 2 else "cpu" for layer in range(4)},
    "model.language_model.norm": "cpu",
    "model.language_model.rotary_emb": "cpu",
    "lm_head": "disk",
}
"""Neighbours are in different places, and so are the layers in front of a stage and behind it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dispatch")


@pytest.fixture(scope="module")
def weights(folder):
    return write_weights(folder)


@pytest.fixture(scope="module")
def made():
    """Models that were made already."""
    return {}


@pytest.fixture
def plain(made, tools):
    """The model with all its weights."""
    if "plain" not in made:
        made["plain"] = tools["tiny_llava"]("sdpa")
    return made["plain"]


@pytest.fixture(params=["offloaded", "mixed"])
def dispatched(request, made, folder, tools, inputs):
    """The same model without its weights: all in memory, or every other module's on disk."""
    if request.param not in made:
        model = tools["tiny_llava"]("sdpa")
        if request.param == "offloaded":
            made[request.param] = cpu_offload(model, execution_device=torch.device("cpu"))
        else:
            made[request.param] = dispatch_model(model, MIXED, main_device="cpu", offload_dir=folder / "weights")
        made[request.param](**inputs)  # transformers adds hooks of its own in the first forward
    return made[request.param]


@pytest.fixture
def inputs(tools):
    rows = [tools["prompt"](3, "image", 5, seed=1), tools["prompt"](2, "image", 9, seed=2)]
    return {**tools["padded"](rows, "left"), "pixel_values": tools["pixels"](2)}


def outcome(model, recipe, inputs):
    """Logits, what was kept, and answers without and with beams."""
    kept = Kept()
    with headwise.attach(model, recipe, observers=[kept]):
        logits, found = model(**inputs).logits, dict(kept.found)
        answers = [model.generate(**inputs, **OPTIONS, max_new_tokens=3, num_beams=beams) for beams in (1, 2)]
    return logits, found, [answer.tolist() for answer in answers]


def away(model):
    """Names of the weights that are elsewhere."""
    return {name for name, weight in model.named_parameters() if weight.device.type == "meta"}


@pytest.mark.parametrize("method", METHODS)
def test_a_dispatched_model_prunes_as_it_does_in_one_place(plain, dispatched, weights, inputs, method):
    recipe, before, missing = recipe_of(method, weights, keep=5), marks(dispatched), away(dispatched)
    logits, kept, answers = outcome(plain, recipe, inputs)
    found = outcome(dispatched, recipe, inputs)
    torch.testing.assert_close(found[0], logits, **CLOSE)
    assert (kept, answers) == found[1:]
    assert (before, missing) == (marks(dispatched), away(dispatched))


def test_weights_are_elsewhere_on_both_sides_of_a_stage(dispatched):
    """What the test above is about: projections and norms that hold nothing until they are called."""
    layer = "model.language_model.layers.1"
    wanted = {f"{layer}.self_attn.q_proj.weight", f"{layer}.input_layernorm.weight", "lm_head.weight"}
    assert wanted <= away(dispatched)
