"""Every family that needs nothing but its line: eviction equals the stock model with masked keys."""

from __future__ import annotations

from importlib.metadata import entry_points
from itertools import pairwise

import pytest
import torch
from tests.adapters.decoders import tokens
from tests.reference.streaming_stock import streamed
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import headwise
from headwise.attachment import adapter_for
from headwise.errors import ModelError
from headwise.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
FAMILIES = sorted(
    entry.name
    for entry in entry_points(group="headwise.adapter")
    if entry.value.startswith("headwise_adapters.families.text:")
    and entry.name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    and entry.name != "gpt_neox"
)
SMALL = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_num_experts": 4,
    "moe_k": 2, "n_shared_experts": 1,
}  # fmt: skip
LAYERS = {"smollm3": 4, "exaone4": 4, "exaone_moe": 4, "cohere2": 4, "olmo3": 4, "gemma3_text": 6}
"""As many as it takes for the one layer that turns keys otherwise than the others, or not at all."""
LENGTH, PAD, WINDOW = 40, 7, 12


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def random(family, attention):
    torch.manual_seed(0)
    told = {name: value for name, value in SMALL.items() if family != "persimmon" or name != "num_key_value_heads"}
    config = AutoConfig.for_model(family, num_hidden_layers=LAYERS.get(family, 2), **told)
    if getattr(config, "sliding_window", None):
        config.sliding_window = 19
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.2)
    return model


def inputs():
    """Two rows, the second padded on the left."""
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, :PAD] = 0
    ids = torch.stack([tokens(LENGTH, 1), tokens(LENGTH, 2)])
    return ids, mask, (mask.cumsum(-1) - 1).clamp_min(0)


def read(model, cache, ids, mask, positions):
    """Logits of real tokens, read in chunks and then one by one."""
    cuts, parts = [0, 17, 30, *range(31, LENGTH + 1)], []
    for start, end in pairwise(cuts):
        parts.append(
            model(
                ids[:, start:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, start:end],
                past_key_values=cache,
            ).logits
        )
    return torch.cat(parts, 1)[mask.bool()]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_gives_the_stock_models_answer(family, attention):
    model, (ids, mask, positions) = random(family, attention), inputs()
    stock = model(ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]
    for recipe in ("window:window=500", "knorm:budget=500"):
        cache = headwise.cache(model, Recipe.of(recipe))
        torch.testing.assert_close(read(model, cache, ids, mask, positions), stock, **CLOSE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_is_the_stock_model_with_masked_keys(family, attention):
    model, (ids, mask, positions) = random(family, attention), inputs()
    place = torch.arange(LENGTH)
    near = (place[:, None] >= place) & (place[:, None] - place < WINDOW)
    visible = near & mask.bool()[:, None, :] | torch.eye(LENGTH, dtype=torch.bool)
    hidden = torch.where(visible, 0.0, torch.finfo(torch.float32).min)[:, None]
    kinds = set(getattr(model.config, "layer_types", None) or ())
    given = dict.fromkeys(kinds, hidden) if len(kinds) > 1 else hidden
    stock = model(ids, attention_mask=given, position_ids=positions, use_cache=False).logits[mask.bool()]
    cache = headwise.cache(model, Recipe.of(f"window:window={WINDOW}"))
    torch.testing.assert_close(read(model, cache, ids, mask, positions), stock, **CLOSE)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "nanochat"])
def test_keys_are_moved_as_the_model_turns_them(family):
    model, ids = random(family, "eager"), tokens(26, 1)[None]
    expected = streamed(model, ids, sinks=2, recent=7)
    for cuts in (range(27), (0, 5, 6, 19, 26)):
        cache = headwise.cache(model, Recipe.of("streaming:sinks=2,window=8,positions=relative"))
        chunks = [model(ids[:, start:end], past_key_values=cache).logits for start, end in pairwise(cuts)]
        torch.testing.assert_close(torch.cat(chunks, 1), expected, **CLOSE)


@pytest.mark.skipif("nanochat" not in FAMILIES, reason="this transformers has no nanochat")
@pytest.mark.parametrize("text", ["streaming:window=8", "snapkv:budget=8,rerotate=true"])
def test_keys_that_turn_backwards_are_not_moved(text):
    with pytest.raises(ModelError, match=r"NanoChatAttention of layer 0 does not turn .*positions=original"):
        headwise.cache(random("nanochat", "eager"), Recipe.of(text))


@pytest.mark.parametrize("family", FAMILIES)
def test_feed_forward_blocks_without_a_gate_are_counted_without(family):
    ungated = {"phi", "starcoder2", "nemotron", "arcee", "apertus", "jais2", "nanochat", "persimmon"}
    assert adapter_for(random(family, "eager")).geometry.gated == (family not in ungated)
