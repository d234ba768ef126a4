"""``headwise plan`` and the KV cache: entries, windows and bytes, counted head by head; shapes of language models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headwise import ModelError, shape
from headwise.cli import main
from headwise.families import geometry_of
from headwise.heads import HeadLabels, HeadProfile

DEMO = Path(__file__).parents[2] / "lab/headwise_lab/models/demo-pythia/config.json"

SCORED = """
from headwise import ScorePlan, hookimpl

class Stripes:
    '''Keeps what is striped.'''

    @hookimpl
    def kv_eviction(self, geometry):
        return ScorePlan(geometry=geometry, score=lambda evidence: evidence.keys.sum(-1), ratio=0.25, every=EVERY)
"""


def run(capsys, *words):
    assert main(["plan", *words]) == 0
    return capsys.readouterr().out


def planned(capsys, *words):
    return json.loads(run(capsys, *words, "--json"))


def failed(capsys, *words):
    assert main(["plan", *words]) == 2
    return capsys.readouterr().err


@pytest.fixture
def profile(tmp_path):
    """Llama-3.1-8B with gathering heads in the last two layers only, the first of four that share their keys."""
    labels = np.zeros((32, 32), dtype=np.int64)
    labels[30:, ::4] = 1
    labels[31, ::8] = 0
    found = HeadLabels(names=("mixed", "gathering"), labels=labels, confidence=np.ones((32, 32)))
    HeadProfile(model="llama", labels=found).save(tmp_path / "profile.json")
    return str(tmp_path / "profile.json")


def test_streaming_on_pythia_in_words(capsys):
    out = run(capsys, "--shape", "pythia-2.8b", "--strategy", "streaming:sinks=4,window=60")
    assert out == STREAMING


STREAMING = """pythia-2.8b: 32 layers, 32 heads
  kv_eviction=streaming:sinks=4,window=60,positions=relative

context     64.00 of 4096 entries per layer and KV head on average
  layers 0-31    64.00      640.00 KiB
windows     1 different in all, at most 1 in a layer

                                           plan   full cache   ratio
KV bytes after 4096 tokens            20.00 MiB  1280.00 MiB   0.016

KV cache: 2 bytes per number; full is the cache that holds all tokens in every layer
"""


def test_windows_of_a_profile_are_counted_layer_by_layer(capsys, profile):
    words = ("--shape", "llama-3.1-8b", "--strategy", "head_windows:gathering=252,mixed=60", "--profile", profile)
    found = planned(capsys, *words, "--seen", "200", "--itemsize", "4")["kv_eviction"]
    layers = [64.0] * 30 + [200.0, 132.0]
    assert layers == found["entries_per_layer"]
    assert sum(layers) / 32 == found["context"]
    assert found["windows"] == {"different": 2, "most_in_a_layer": 2}
    assert [entries * 8 * 2 * 128 * 4 for entries in layers] == found["kv_bytes_per_layer"]
    assert sum(found["kv_bytes_per_layer"]) == found["kv_bytes"]["plan"]
    assert found["kv_bytes"]["full"] == 200 * 32 * 8 * 2 * 128 * 4
    out = run(capsys, *words, "--seen", "1000")
    assert f"  profile {profile}\n" in out
    assert "  layers 0-29    64.00      256.00 KiB\n  layer 30       256.00     1.00 MiB\n" in out
    assert "windows     2 different in all, at most 2 in a layer\n" in out


def test_no_strategy_is_the_full_cache(capsys):
    record = planned(capsys, "--shape", "pythia-70m")
    assert "flops" not in record
    assert (record["kv_eviction"]["context"], record["kv_eviction"]["kv_bytes"]["ratio"]) == (4096.0, 1.0)


@pytest.mark.parametrize(("every", "decoding"), [(16, "every 16 tokens of decoding"), (0, "not in decoding")])
def test_scores_have_no_windows_but_a_rhythm(capsys, install, every, decoding):
    source = SCORED.replace("EVERY", str(every))
    install("zebra", "1.2", {"kv_eviction": {"zebra_scored": "zebra_mod:Stripes"}}, zebra_mod=source)
    words = ("--shape", "smollm2-135m", "--strategy", "zebra_scored", "--seen", "1000")
    record = planned(capsys, *words)["kv_eviction"]
    assert (record["windows"], record["every"], record["context"]) == (None, every, 250.0)
    assert record["kv_bytes"]["plan"] == 250 * 30 * 3 * 64 * 2 * 2
    assert f"scores      entries right after an eviction: once a prompt or chunk is read, and {decoding}\n" in run(
        capsys, *words
    )


def test_pruning_and_eviction_are_planned_together(capsys):
    words = (
        "--shape",
        "llava-1.5-7b",
        "--strategy",
        "fastv:layer=2",
        "--keep",
        "64",
        "--strategy",
        "window:window=200",
    )
    record = planned(capsys, *words, "--text", "100")
    assert record["kv_eviction"]["seen"] == 676
    assert record["kv_eviction"]["entries_per_layer"] == [200.0] * 2 + [164.0] * 30  # 64 visual tokens and 100 of text
    assert record["kv_eviction"]["kv_bytes"]["full"] == record["kv_bytes"]["with_text"]["unpruned"]
    out = run(capsys, *words)
    assert "  layers 2-31    64\n" in out
    assert "after prefill and before eviction\n" in out
    assert "KV bytes after 640 tokens" in out


def test_pruning_alone_is_planned_without_eviction(capsys):
    assert "kv_eviction" not in planned(capsys, "--shape", "llava-1.5-7b")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--shape", "pythia-70m", "--strategy", "head_windows"),
            "kv_eviction strategy 'head_windows' needs a head profile; make one with `headwise classify-heads --out"
            " profile.json` and give it with --profile profile.json (in Python: Recipe.of(...,"
            " profile='profile.json'))",
        ),
        (
            ("--shape", "llava-1.5-7b", "--strategy", "streaming", "--seen", "99"),
            "seen=99 is less than the 576 visual tokens of llava-1.5-7b; give at least 576",
        ),
        (
            ("--shape", "llava-1.5-7b", "--strategy", "none"),
            "strategy 'none' exists for more than one hook; write token_pruning=none or kv_eviction=none",
        ),
        (
            ("--shape", "demo-llava", "--strategy", "random", "--keep", "4"),
            "strategy 'random' exists for more than one hook; write head_scoring=random or token_pruning=random or"
            " kv_eviction=random",
        ),
        (
            ("--shape", "pythia-70m", "--strategy", "head_classification=locality"),
            "'head_classification=locality' is a head_classification strategy; what is wanted here is query_selection"
            " or head_scoring or head_count or token_pruning or kv_eviction",
        ),
    ],
)
def test_every_mistake_is_one_sentence(capsys, words, sentence):
    assert f"headwise: {sentence}\n" == failed(capsys, *words)


def test_a_profile_of_another_model_is_refused(capsys, profile):
    err = failed(capsys, "--shape", "pythia-70m", "--strategy", "head_windows", "--profile", profile)
    assert "the profile of 'llama' has 32 layers x 32 heads and pythia-70m has 6 x 8" in err


CONFIGS = {  # what the models' own config.json says
    "pythia-2.8b": {"model_type": "gpt_neox", "num_hidden_layers": 32, "num_attention_heads": 32,
                    "hidden_size": 2560, "intermediate_size": 10240},
    "pythia-70m": {"model_type": "gpt_neox", "num_hidden_layers": 6, "num_attention_heads": 8,
                   "hidden_size": 512, "intermediate_size": 2048},
    "smollm2-135m": {"model_type": "llama", "num_hidden_layers": 30, "num_attention_heads": 9,
                     "num_key_value_heads": 3, "hidden_size": 576, "intermediate_size": 1536},
    "llama-3.1-8b": {"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "hidden_size": 4096, "intermediate_size": 14336},
    "demo-pythia": json.loads(DEMO.read_text()),
    "llava-1.6-vicuna-7b": {"model_type": "llava_next", "text_config": {"model_type": "llama", "vocab_size": 32064},
                            "vision_config": {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}},
    "qwen2.5-vl-3b": {"model_type": "qwen2_5_vl", "num_hidden_layers": 36, "num_attention_heads": 16,
                      "num_key_value_heads": 2, "hidden_size": 2048, "intermediate_size": 11008,
                      "sliding_window": 32768, "use_sliding_window": False, "vision_config": {}},
    "qwen2.5-vl-7b": {"model_type": "qwen2_5_vl", "vision_config": {},
                      "text_config": {"model_type": "qwen2_5_vl_text", "num_hidden_layers": 28,
                                      "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584,
                                      "intermediate_size": 18944, "layer_types": ["full_attention"] * 28}},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes_are_what_the_configurations_say(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps(CONFIGS[name]))
    assert shape(name) == geometry_of(str(tmp_path / name))


def test_what_llava_next_on_mistral_leaves_out_is_mistrals(tmp_path):
    vision = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
    text = {"model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8, "sliding_window": None}
    config = {"model_type": "llava_next", "text_config": text, "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = geometry_of(str(tmp_path))
    assert (found.layers, found.heads, found.kv_heads, found.visual_tokens, found.sliding) == (32, 32, 8, 2880, ())


@pytest.mark.parametrize(("tower", "tokens"), [("siglip_vision_model", 729), ("clip_vision_model", 730)])
def test_a_model_that_keeps_all_tokens_keeps_the_class_token_where_there_is_one(tmp_path, tower, tokens):
    vision = {"model_type": tower, "image_size": 378, "patch_size": 14}
    config = {"model_type": "llava", "text_config": CONFIGS["llama-3.1-8b"], "vision_config": vision}
    config["vision_feature_select_strategy"] = "full"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert geometry_of(str(tmp_path)).visual_tokens == tokens


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3"])
def test_other_language_models_are_read_with_their_own_head_size(tmp_path, kind):
    config = CONFIGS["llama-3.1-8b"] | {"model_type": kind, "head_dim": 96}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = geometry_of(str(tmp_path / "config.json"))
    assert (found.head_dim, found.kv_heads, found.visual_tokens, found.gated) == (96, 8, 0, True)


def test_a_language_model_of_another_kind_is_refused_with_those_that_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["pythia-70m"] | {"model_type": "gpt2"}))
    with pytest.raises(ModelError, match=r"model_type='gpt2'; wanted that of .*: apertus, .*, starcoder2$"):
        geometry_of(str(tmp_path))
