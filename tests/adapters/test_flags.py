"""Attention that takes flags for a mask, as flash attention does: written out here, because no CPU has it."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.conftest import padded, pixels, prompt, tiny_llava
from tests.adapters.vision_models import QWEN
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import flash_attention_mask, sdpa_mask

import headwise
from headwise.errors import ModelError
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def flash(module, query, key, value, mask, scaling=None, position_ids=None, **_):
    """What transformers makes of flash attention, with dense matrices: unpadded by flags, or else by positions."""
    batch, _, q, _ = query.shape
    k, times = key.shape[2], query.shape[1] // key.shape[1]
    ends = torch.arange(k) <= torch.arange(k - q, k)[:, None]
    if mask is not None:
        assert mask.shape == (batch, k), "flags are not those of the keys"
        visible = mask.bool()[:, None, None, :] & ends
    elif position_ids is not None and batch == 1 and q > 1 and _packed(position_ids):
        text = (position_ids[0] == position_ids.min()).cumsum(0)  # lengths of keys are taken for those of queries
        visible = torch.zeros(q, k, dtype=torch.bool)
        visible[:, :q] = (text[:, None] == text) & torch.ones(q, q, dtype=torch.bool).tril()
    else:
        visible = ends
    products = query @ key.repeat_interleave(times, dim=1).transpose(-1, -2) * scaling
    attention = products.masked_fill(~visible, float("-inf")).softmax(-1).nan_to_num(0)
    return (attention @ value.repeat_interleave(times, dim=1)).transpose(1, 2).contiguous(), None


def _packed(position_ids) -> bool:
    return bool((torch.arange(position_ids.shape[1]) + position_ids.min() - position_ids).any())


@pytest.fixture(scope="module", autouse=True)
def registered():
    AttentionInterface.register("flags_of_flash", flash)
    AttentionMaskInterface.register("flags_of_flash", flash_attention_mask)
    AttentionInterface.register("masks_of_sdpa", AttentionInterface()["sdpa"])
    AttentionMaskInterface.register("masks_of_sdpa", sdpa_mask)
    AttentionInterface.register("no_masks", flash)


def with_attention(model, name: str):
    model.set_attn_implementation({"text_config": name})
    assert model.model.language_model.config._attn_implementation == name
    return model


@pytest.mark.parametrize(
    ("text", "positions"), [("fastv:layer=2", "keep"), ("uniform:layer=0", "compact"), ("pdrop:layers=1/2/3", "keep")]
)
def test_conversations_with_images_are_those_of_sdpa(text, positions):
    """The second prompt's positions have gaps where its tokens were dropped, and no mask goes with them."""
    logits = {}
    for name in ("sdpa", "flags_of_flash"):
        model = with_attention(tiny_llava("sdpa"), name)
        cache, logits[name] = DynamicCache(), []
        with headwise.attach(model, Recipe.of(text, keep=4, positions=positions)):
            for turn in range(2):
                ids, images = prompt(3, "image", 5, seed=turn), pixels(1, turn)
                logits[name].append(model(input_ids=ids, pixel_values=images, past_key_values=cache).logits)
                word = torch.tensor([[7 + turn]])
                logits[name].append(model(input_ids=word, past_key_values=cache).logits)
    for found, expected in zip(logits["flags_of_flash"], logits["sdpa"], strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)


def test_conversations_of_qwen_are_those_of_sdpa():
    logits = {}
    for name in ("sdpa", "flags_of_flash"):
        model = with_attention(QWEN.make("sdpa"), name)
        one = QWEN.prompt(model, 3, QWEN.sizes[0], 5)
        with headwise.attach(model, Recipe.of("fastv:layer=2", keep=300)):
            told = model.generate(
                **one.inputs, max_new_tokens=4, do_sample=False, suppress_tokens=[3, 4], output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        logits[name] = torch.stack(told.logits)
    torch.testing.assert_close(logits["flags_of_flash"], logits["sdpa"], **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_that_keep_different_numbers_are_those_of_sdpa(side):
    batch = padded([prompt(3, "image", 5), prompt(2, "image", 3, "image"), prompt(9)], side)
    places = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    logits = []
    for name in ("sdpa", "flags_of_flash"):
        model = with_attention(tiny_llava("sdpa"), name)
        with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)):
            logits.append(model(**batch, position_ids=places, pixel_values=pixels(3)).logits)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(logits[1][real], logits[0][real], **CLOSE)


def test_attention_of_any_name_is_known_by_its_masks():
    ids, images, logits = prompt(3, "image", 5), pixels(1), []
    for name in ("sdpa", "masks_of_sdpa"):
        model = with_attention(tiny_llava("sdpa"), name)
        with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)):
            logits.append(model(input_ids=ids, pixel_values=images).logits)
    assert torch.equal(*logits)


@pytest.mark.parametrize("name", ["flex_attention", "no_masks"])
@pytest.mark.parametrize("inside", [True, False])
def test_attention_with_other_masks_is_refused(name, inside):
    model = tiny_llava("sdpa")
    model.model.language_model.layers[0].register_forward_pre_hook(lambda *_: pytest.fail("a layer ran"))
    refused = pytest.raises(ModelError, match=f"the masks of attention implementation '{name}' cannot be cut")
    if not inside:
        with_attention(model, name)
        with refused, headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)):
            pass
        return
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)):
        with_attention(model, name)
        with refused:
            model(input_ids=prompt(3, "image", 5), pixel_values=pixels(1))


def test_prompts_without_an_image_go_through_any_attention():
    model, ids = with_attention(tiny_llava("sdpa"), "sdpa"), prompt(9)
    expected = with_attention(model, "no_masks")(input_ids=ids).logits
    with_attention(model, "sdpa")
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)):
        with_attention(model, "no_masks")
        assert torch.equal(model(input_ids=ids).logits, expected)
