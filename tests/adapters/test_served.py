"""What KV eviction serves is found out before anything is computed; what it does not serve is refused by name."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.decoders import tiny, tokens
from transformers import AutoModelForCausalLM, DiffLlamaConfig, Gemma2Config, Lfm2Config
from transformers.models.llama import modeling_llama

import headwise
from headwise.errors import ModelError
from headwise.recipe import Recipe
from headwise_adapters.families.text import LLAMA, PYTHIA

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SMALL = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def one_line(monkeypatch):
    """Every model is given the family that CONTRIBUTING.md's one line names."""
    monkeypatch.setattr("headwise.attachment.adapter_for", LLAMA.adapter)


def random(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("recipe", ["window:window=20", "snapkv:budget=20", "streaming:window=20"])
def test_an_unknown_argument_of_attention_is_refused_at_attach(one_line, recipe):
    model = random(Gemma2Config(**SMALL, head_dim=8))
    with (
        pytest.raises(ModelError, match="Gemma2Attention computes attention with softcap"),
        headwise.attach(model, Recipe.of(recipe)),
    ):
        pass


def test_another_rotation_is_refused_by_strategies_that_rotate_and_serves_the_others(monkeypatch):
    stock = modeling_llama.apply_rotary_pos_emb
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, cos, sin: stock(q, k, cos, -sin))
    model = tiny("llama")
    with pytest.raises(ModelError, match=r"LlamaAttention of layer 0 does not turn .*positions=original"):
        headwise.cache(model, Recipe.of("streaming:window=8"))
    with pytest.raises(ModelError, match="LlamaAttention of layer 0 does not turn"):
        headwise.cache(model, Recipe.of("snapkv:budget=8,rerotate=true"))
    ids = tokens(30)[None]
    served = model(ids, past_key_values=headwise.cache(model, Recipe.of("window:window=50"))).logits
    torch.testing.assert_close(served, model(ids).logits, **CLOSE)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "neox"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_rotation_of_families_that_are_served_is_found_to_be_theirs(family, dtype):
    headwise.cache(tiny(family, dtype=dtype), Recipe.of("streaming:window=8"))


def test_a_model_without_weights_is_refused_by_strategies_that_rotate(one_line):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Gemma2Config(**SMALL, head_dim=8))
    headwise.cache(model, Recipe.of("window:window=8"))
    with pytest.raises(ModelError, match="Gemma2Attention computes attention with softcap"):
        headwise.cache(model.to_empty(device="cpu"), Recipe.of("window:window=8"))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Gemma2Config(**SMALL, head_dim=8))
    with pytest.raises(ModelError, match=r"Gemma2Attention has no weights yet \(device meta\).*load them first"):
        headwise.cache(model, Recipe.of("streaming:window=8"))


def test_layers_without_attention_are_refused_by_name(one_line):
    model = random(Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]))
    with pytest.raises(ModelError, match="layer 0 of this model is of type 'conv'"):
        headwise.cache(model, Recipe.of("window:window=8"))


def test_attention_that_is_computed_twice_is_refused(one_line):
    with pytest.raises(ModelError, match="DiffLlamaAttention computes attention 2 times"):
        headwise.cache(random(DiffLlamaConfig(**SMALL)), Recipe.of("window:window=8"))


@pytest.mark.parametrize("family", ["llama", "neox"])
@pytest.mark.parametrize("cached", [True, False])
def test_packed_texts_are_refused_before_anything_is_computed(family, cached):
    model, ids = tiny(family), tokens(30)[None]
    ran = []
    model.get_input_embeddings().register_forward_hook(lambda *_: ran.append(1))
    packed = torch.cat([torch.arange(12), torch.arange(18)])[None]
    with headwise.attach(model, Recipe.of("window:window=8")):
        with pytest.raises(ModelError, match="start again within a row"):
            model(ids, position_ids=packed, use_cache=cached)
        with pytest.raises(ModelError, match=r"packed texts \(cu_seq_lens_q\)"):
            model(ids, use_cache=cached, cu_seq_lens_q=torch.tensor([0, 12, 30]))
        assert not ran
        counted = model(ids, position_ids=torch.arange(30)[None], use_cache=cached).logits
        torch.testing.assert_close(counted, model(ids, use_cache=cached).logits, **CLOSE)


def test_position_ids_that_leave_numbers_out_serve_only_where_they_are_not_moved():
    model, ids = tiny("llama", "eager"), tokens(30)[None]
    gaps = torch.arange(30)[None] * 2
    q = torch.arange(30)
    hidden = torch.where((q[:, None] >= q) & (q[:, None] - q < 8), 0.0, torch.finfo(torch.float32).min)[None, None]
    wanted = model(ids, position_ids=gaps, attention_mask=hidden).logits
    with headwise.attach(model, Recipe.of("window:window=8")):
        torch.testing.assert_close(model(ids, position_ids=gaps).logits, wanted, **CLOSE)
    with (
        headwise.attach(model, Recipe.of("streaming:window=8")),
        pytest.raises(ModelError, match="position_ids skip numbers"),
    ):
        model(ids, position_ids=gaps)


def test_continuous_batching_is_refused():
    model = tiny("llama", "sdpa")
    with headwise.attach(model, Recipe.of("window:window=8")):
        model.config._attn_implementation = "paged|sdpa"
        with pytest.raises(ModelError, match="continuous batching"):
            model(tokens(5)[None])


@pytest.mark.parametrize(
    ("family", "sentence"),
    [
        (LLAMA, r"Linear has no model\.layers; attach to a causal language model"),
        (PYTHIA, r"Linear has no gpt_neox\.layers; attach to a GPTNeoXForCausalLM"),
    ],
)
def test_families_know_their_models(family, sentence):
    with pytest.raises(ModelError, match=sentence):
        family.adapter(torch.nn.Linear(1, 1))
