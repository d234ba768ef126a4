"""What a family reads off a configuration file is what it says of the model that transformers makes of that file."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from headwise.attachment import adapter_for
from headwise.errors import HeadwiseError, ModelError
from headwise.families import family, read_geometry, shape, shapes
from headwise_adapters.families.family import config_of

TEXT = sorted(
    entry.name
    for entry in entry_points(group="headwise.adapter")
    if entry.name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and entry.dist.name == "headwise"
)
SLIDING = ["cohere2", "dots1", "exaone4", "gemma3_text", "ministral", "mistral", "mixtral", "olmo3", "phi3", "phimoe",
           "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "starcoder2"]  # fmt: skip
NOT_BY_DEFAULT = {"glm4_moe": {"head_dim": 128}}  # its 96 heads do not divide its width
UNGATED = {"apertus", "arcee", "gpt_neox", "jais2", "nanochat", "nemotron", "persimmon", "phi", "starcoder2"}


def live(config):
    """Counts as the model's own code has them, after transformers has worked out what the file does not say."""
    heads = config.num_attention_heads
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    sliding = tuple(window if window and kind == "sliding_attention" else None for kind in kinds)
    return {
        "layers": config.num_hidden_layers,
        "heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "hidden": config.hidden_size,
        "intermediate": config.intermediate_size,
        "sliding": sliding if any(sliding) else (),
    }


def read(folder, config):
    """What `headwise plan --shape` takes the geometry from."""
    (folder / "config.json").write_text(json.dumps(config))
    return read_geometry(folder)


def counts(geometry):
    return {key: getattr(geometry, key) for key in live(AutoConfig.for_model("llama"))}


@pytest.mark.parametrize("model_type", TEXT)
def test_a_file_of_every_text_family_gives_what_attaching_gives(tmp_path, model_type):
    given = NOT_BY_DEFAULT.get(model_type, {})
    config = AutoConfig.for_model(model_type, **given)
    found = read(tmp_path, config.to_dict())
    assert counts(found) == live(config)
    assert found.gated == (model_type not in UNGATED)
    bare = read(tmp_path, {"model_type": model_type, **given})  # all as in its class
    assert bare == found


@pytest.mark.parametrize("layers", [3, 8])
@pytest.mark.parametrize("model_type", SLIDING)
def test_windows_that_older_files_do_not_list_are_those_of_the_model(tmp_path, model_type, layers):
    given = {"num_hidden_layers": layers, "sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}
    config = AutoConfig.for_model(model_type, **given)
    found = read(tmp_path, {"model_type": model_type, **given})
    assert counts(found) == live(config)
    assert found.sliding or model_type == "qwen2"
    assert read(tmp_path, config.to_dict()) == found


@pytest.mark.parametrize(("model_type", "pattern"), [("gemma3_text", 2), ("cohere2", 3), ("exaone4", 2)])
def test_the_pattern_of_windows_is_the_files(tmp_path, model_type, pattern):
    given = {"num_hidden_layers": 7, "sliding_window": 64, "sliding_window_pattern": pattern}
    found = read(tmp_path, {"model_type": model_type, **given})
    assert found.sliding == live(AutoConfig.for_model(model_type, **given))["sliding"]
    assert found.sliding.count(None) == 7 // pattern


def test_a_window_that_the_model_does_not_know_is_none(tmp_path):
    assert read(tmp_path, {"model_type": "llama", "sliding_window": 64}).sliding == ()


def test_layers_that_have_a_window_are_not_guessed(tmp_path):
    with pytest.raises(ModelError, match="gives sliding_window=64 and no layer_types, so which layers"):
        read(tmp_path, {"model_type": "smollm3", "sliding_window": 64, "use_sliding_window": True})


@pytest.mark.parametrize("model_type", ["llama", "mistral", "phi", "gpt_neox", "gemma3_text", "qwen2_moe"])
def test_attaching_asks_the_same_family(tmp_path, model_type):
    small = {"vocab_size": 30, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "head_dim": 8,
             "intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    if model_type != "gpt_neox":
        small["num_key_value_heads"] = 2
    if model_type == "qwen2_moe":
        small |= {"num_experts": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
    config = AutoConfig.for_model(model_type, **small)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    attached = adapter_for(model).geometry
    assert attached == family(model_type).geometry(config_of(model))
    config.save_pretrained(tmp_path)
    read_from_file = read_geometry(tmp_path)
    assert (counts(attached), attached.gated) == (counts(read_from_file), read_from_file.gated)


def test_a_family_that_is_not_what_the_model_has_is_refused(install):
    source = "from headwise_adapters.families.text import UNGATED\n"
    install("zebra", "1.2", {"adapter": {"zebra": "zebra_family:UNGATED"}}, zebra_family=source)
    config = AutoConfig.for_model(
        "llama", vocab_size=30, num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=8
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.config.model_type = "zebra"
    with pytest.raises(ModelError, match="feed-forward blocks with a gate, and its family is registered as one with"):
        adapter_for(model)


def test_shapes_and_folders_are_read_without_torch_and_transformers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3", "use_sliding_window": True}))
    original = {"model_type": "llava_llama", "mm_vision_tower": "openai/clip-vit-large-patch14-336", "hidden_size": 64,
                "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}  # fmt: skip
    (tmp_path / "original.json").write_text(json.dumps(original))
    script = (
        "import sys; from headwise.families import geometry_of, shape, shapes; [shape(name) for name in shapes()];"
        "assert geometry_of(sys.argv[1]).sliding[28:] == (4096,) * 4;"
        "assert geometry_of(sys.argv[2]).visual_tokens == 576;"
        "heavy = {'torch', 'transformers'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    words = [sys.executable, "-c", script, str(tmp_path), str(tmp_path / "original.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_shape_that_families_publish_is_a_geometry():
    assert len(shapes()) == len(set(shapes())) > 10
    for name in shapes():
        assert shape(name).name == name


BROKEN = {
    "lost": ("zebra_lost:FAMILY", "", r"'zebra' from zebra 1\.2 \(zebra_lost:FAMILY\) does not import"),
    "class": (
        "zebra_family:Adapter",
        "class Adapter:\n    pass\n",
        r"'zebra' from zebra 1\.2 \(zebra_family:Adapter\) is no model family: it lacks shapes, geometry, adapter",
    ),
    "raises": (
        "zebra_family:FAMILY",
        "class Zebra:\n    shapes = {}\n    adapter = None\n    def geometry(self, config):\n        1 / 0\n"
        "FAMILY = Zebra()\n",
        r"geometry of model family 'zebra' \(zebra 1\.2\) failed: ZeroDivisionError",
    ),
    "else": (
        "zebra_family:FAMILY",
        "class Zebra:\n    shapes = {}\n    adapter = None\n    def geometry(self, config):\n        return 1 / 1\n"
        "FAMILY = Zebra()\n",
        r"geometry of model family 'zebra' \(zebra 1\.2\) returns float; wanted a headwise\.Geometry",
    ),
}


@pytest.mark.parametrize(("entry", "source", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_family_is_one_sentence_with_its_owner_and_spoils_no_other(install, tmp_path, entry, source, sentence):
    install("zebra", "1.2", {"adapter": {"zebra": entry}}, zebra_family=source)
    with pytest.raises(HeadwiseError, match=sentence) as caught:
        read(tmp_path, {"model_type": "zebra"})
    assert "\n" not in str(caught.value)
    assert shape("llava-1.5-7b").layers == 32
    assert read(tmp_path, {"model_type": "llama"}).layers == 32
    if "shapes" not in source:
        with pytest.raises(ModelError, match=sentence):  # it may have published what was asked for
            shape("llava-1.5-8b")


def test_a_family_of_another_package_publishes_shapes(install):
    source = (
        "from headwise_adapters.families.family import Family\n"
        "FAMILY = Family(gated=False, shapes={'zebra-1b': {'num_hidden_layers': 3, 'num_attention_heads': 4,"
        " 'hidden_size': 32, 'intermediate_size': 64}})\n"
    )
    install("zebra", "1.2", {"adapter": {"zebra": "zebra_family:FAMILY"}}, zebra_family=source)
    found = shape("zebra-1b")
    assert (found.layers, found.head_dim, found.gated) == (3, 8, False)


def test_a_language_model_within_another_model_is_read_by_its_own_family(tmp_path):
    text = {"model_type": "starcoder2", "num_key_value_heads": 4, "sliding_window": 99}
    config = {"model_type": "llava", "text_config": text, "vision_config": {"model_type": "clip_vision_model"}}
    found = read(tmp_path, config)
    assert (found.gated, set(found.sliding), found.kv_heads, found.visual_tokens) == (False, {99}, 4, 49)


@pytest.mark.parametrize(
    "pinpoints", [7, [7], [[336]], [[336, 672], [0, 336]], [[336.0, 672]], [["336", "672"]], {"a": 1}]
)
def test_crops_are_pairs_of_height_and_width(tmp_path, pinpoints):
    config = {"model_type": "llava_next", "text_config": {"model_type": "llama"}, "image_grid_pinpoints": pinpoints}
    config["vision_config"] = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
    with pytest.raises(ModelError, match=r"gives image_grid_pinpoints=.*; wanted pairs of height and width in pixels"):
        read(tmp_path, config)
    assert read(tmp_path, config | {"image_grid_pinpoints": [[336, 672]]}).visual_tokens == 3 * 576
