"""``--model`` on a checkpoint in the layout of LLaVA's authors: planned, run, recorded, told apart, fetched."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatch

import attrs
import pytest
import torch
from PIL import Image, ImageDraw
from tests.adapters import original_checkpoint as original

from headwise.cli import main
from headwise.errors import ModelError
from headwise.families import geometry_of, shape
from headwise_lab.benchmarks import Question
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.prompting import encode
from headwise_lab.cost.timing import generate
from headwise_lab.models.checkpoints import checkpoint_of
from headwise_lab.models.load import load_language_model, load_model
from headwise_lab.trial import answering

GEOMETRY = {"layers": original.LAYERS, "heads": original.HEADS, "kv_heads": original.KV_HEADS, "head_dim": 8,
            "hidden": original.HIDDEN, "intermediate": original.INNER, "visual_tokens": original.VISUAL}  # fmt: skip
LLAVA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 32, "vocab_size": 32000}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return original.write(tmp_path_factory.mktemp("original") / "llava-tiny")


@pytest.fixture(scope="module")
def loaded(folder):
    return load_model(str(folder))


def question(folder, picture: Image.Image, text: str = "What color?", boxes=()) -> Question:
    file = folder / f"{text}.png"
    picture.save(file)
    return Question("0", "0", file, text, ("red",), "kind", boxes)


def test_a_checkpoint_is_loaded_by_its_folder(folder, loaded):
    assert (loaded.name, loaded.source, loaded.dtype, loaded.attention) == (
        "llava-tiny",
        str(folder),
        "float32",
        "sdpa",
    )
    assert {key: getattr(loaded.geometry, key) for key in GEOMETRY} == GEOMETRY
    assert loaded.processor.tokenizer.padding_side == "left"
    assert not loaded.model.training


def test_its_shape_is_planned_from_the_config_alone(folder, loaded, tmp_path, capsys):
    assert geometry_of(str(folder)) == loaded.geometry
    assert main(["plan", "--shape", str(folder), "--strategy", "fastv:layer=1", "--keep", "4", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["shape"], record["budget"]["visual"]) == ("llava-tiny", original.VISUAL)
    (tmp_path / "config.json").write_text(
        json.dumps(original.config(**LLAVA_7B, mm_vision_tower="openai/clip-vit-large-patch14-336"))
    )
    known = shape("llava-1.5-7b")
    assert geometry_of(str(tmp_path)) == attrs.evolve(known, name=tmp_path.name)


def test_the_patches_of_a_tower_are_its_own_or_those_of_its_name(tmp_path):
    tower = original.write_tower(tmp_path / "clip", original.tensors())
    for name, feature, visual in (
        ("clip", "patch", original.VISUAL),
        (str(tower), "cls_patch", original.VISUAL + 1),
        ("openai/clip-vit-base-patch32", "patch", 49),
        ("/data/of/someone/clip-vit-large-patch14-336", "patch", 576),
    ):
        told = original.config(mm_vision_tower=name, mm_vision_select_feature=feature)
        (tmp_path / "config.json").write_text(json.dumps(told))
        assert geometry_of(str(tmp_path)).visual_tokens == visual
    (tmp_path / "config.json").write_text(json.dumps(original.config(mm_vision_tower="someone/a-clip")))
    with pytest.raises(ModelError, match="how many patches the vision tower someone/a-clip has is not known"):
        geometry_of(str(tmp_path))


def test_run_prunes_it_on_a_benchmark(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("headwise_lab.benchmarks.questions.COUNT", 8)
    monkeypatch.setattr(answering, "NEW_TOKENS", 2)
    words = ["run", "--model", str(folder), "--benchmark", "shapes-gqa", "--limit", "4", "--keep", "4"]
    assert main([*words, "--strategy", "fastv:layer=2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["model"], record["n"]) == ("llava-tiny", 4)
    assert record["budget"] == {"given": "keep=4", "processed": 12.0, "kept": 4, "visual": 16}
    assert record["overlap"]["n"] > 0


def test_a_question_is_asked_as_the_authors_ask_it(folder, loaded, tmp_path):
    asked = encode(loaded.processor, [question(tmp_path, Image.new("RGB", (9, 5)))])
    told = loaded.processor.tokenizer.decode(asked["input_ids"][0])
    assert told.startswith("<s> A chat between a curious user")
    assert told.replace("<image>", "").endswith("USER:  \nWhat color? ASSISTANT:")
    assert (asked["input_ids"] == original.IMAGE).sum() == original.VISUAL


def test_measured_answers_have_no_added_token(loaded, tmp_path, monkeypatch):
    asked = encode(loaded.processor, [question(tmp_path, Image.new("RGB", (9, 5)))])
    weight = loaded.model.lm_head.weight
    winning = torch.zeros_like(weight)
    winning[original.IMAGE] = torch.randn(original.HIDDEN, generator=torch.Generator().manual_seed(1))
    winning[original.PAD] = -winning[original.IMAGE]
    monkeypatch.setattr(loaded.model.lm_head, "weight", torch.nn.Parameter(winning))
    assert loaded.model(**asked).logits[0, -1].argmax() in (original.IMAGE, original.PAD)
    written = generate(loaded, asked, 4, 4)
    assert written.shape == (1, 4)
    assert int(written.max()) < len(original.VOCABULARY)


@pytest.mark.parametrize(
    ("size", "box", "token"),
    [((48, 24), (12, 0, 24, 12), 5), ((24, 48), (12, 36, 24, 48), 14), ((47, 24), (0, 12, 12, 24), 8)],
)
def test_boxes_follow_a_picture_into_its_square(loaded, tmp_path, size, box, token):
    picture = Image.new("RGB", size)
    ImageDraw.Draw(picture).rectangle([box[0], box[1], box[2] - 1, box[3] - 1], fill="white")
    one = question(tmp_path, picture, boxes=(box,))
    (truth,) = Inputs(loaded, None, [one], 1).truths
    pixels = loaded.processor.image_processor(picture, return_tensors="pt")["pixel_values"][0, 0]
    cells = pixels.reshape(4, original.PATCH, 4, original.PATCH).mean(dim=(1, 3)).flatten()
    assert int(cells.argmax()) == token  # where the white is, once the picture went through the processor
    assert truth.nonzero()[0].tolist() == [token]


def test_weights_configuration_tokenizer_and_tower_tell_checkpoints_apart(tmp_path):
    stored = original.tensors()
    original.write_tower(tmp_path / "clip", stored)
    own = original.without_tower(stored)
    changed = own | {"lm_head.weight": own["lm_head.weight"] + 1}
    places = {
        "first": original.write(tmp_path / "a", own, mm_vision_tower="../clip"),
        "again": original.write(tmp_path / "z", own, mm_vision_tower="../clip"),
        "binary": original.write(tmp_path / "b", own, "bin", mm_vision_tower="../clip"),
        "weights": original.write(tmp_path / "c", changed, mm_vision_tower="../clip"),
        "config": original.write(tmp_path / "d", own, mm_vision_tower="../clip", rms_norm_eps=1e-6),
    }
    found = {name: load_model(str(place)).weights for name, place in places.items()}
    assert found.pop("again") == found["first"]
    changed = {name: 2 * tensor for name, tensor in stored.items()}
    shutil.rmtree(tmp_path / "clip")
    original.write_tower(tmp_path / "clip", changed)
    found["tower"] = load_model(str(places["first"])).weights
    original.write_tokenizer_config(places["first"], model_max_length=7)
    found["tokenizer"] = load_model(str(places["first"])).weights
    assert len(set(found.values())) == len(found)


def test_what_is_wrong_with_a_checkpoint_is_one_sentence_with_its_name(tmp_path, capsys):
    place = original.write(tmp_path / "llava-v1", mm_projector_type="linear")
    assert main(["run", "--model", str(place), "--limit", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"headwise: model {place} cannot be used: config.json gives mm_projector_type='linear', and")


def test_it_is_no_language_model(folder):
    with pytest.raises(ModelError, match="cannot be used: it is a vision-language model in a layout of its own"):
        load_language_model(str(folder))


def test_folders_of_transformers_have_no_loader_of_their_own(folder, tiny_folder, tmp_path):
    assert checkpoint_of(folder) is not None
    assert checkpoint_of(tiny_folder) is None
    assert checkpoint_of(tmp_path) is None
    (tmp_path / "config.json").write_text("[1]")
    assert checkpoint_of(tmp_path) is None


@pytest.mark.parametrize(("kind", "calls"), [("safetensors", 1), ("bin", 2)])
def test_a_name_on_the_hub_brings_only_the_weights_that_are_read(tmp_path, monkeypatch, kind, calls):
    import huggingface_hub

    hub, cache, asked = original.write(tmp_path / "hub", kind=kind), tmp_path / "llava-v1.5-7b", []
    (hub / "training_args.bin").write_bytes(b"")
    cache.mkdir()

    def fetch(name, allow_patterns):
        asked.append(name)
        for path in hub.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    loaded = load_model("liuhaotian/llava-v1.5-7b")
    assert asked == ["liuhaotian/llava-v1.5-7b"] * calls
    assert loaded.geometry.visual_tokens == original.VISUAL
    assert not (cache / "training_args.bin").exists()


def test_another_layout_is_one_class_in_another_package(tiny_folder, tmp_path, monkeypatch):
    metadata = tmp_path / "packages" / "zebra_layout-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: zebra-layout\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[headwise.checkpoint]\nzebra = zebra_layout:Zebra\n")
    (tmp_path / "packages" / "zebra_layout.py").write_text(
        "from pathlib import Path\n"
        "from transformers import AutoProcessor, LlavaForConditionalGeneration\n"
        "class Zebra:\n"
        "    def recognises(self, config):\n"
        "        return config.get('model_type') == 'zebra'\n"
        "    def load(self, folder, dtype, attention):\n"
        "        inner = folder / 'inner'\n"
        "        model = LlavaForConditionalGeneration.from_pretrained(\n"
        "            inner, dtype=dtype, attn_implementation=attention)\n"
        "        return model, AutoProcessor.from_pretrained(inner), [inner / 'model.safetensors']\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "packages")
    place = tmp_path / "striped"
    shutil.copytree(tiny_folder, place / "inner")
    (place / "config.json").write_text('{"model_type": "zebra"}')
    loaded = load_model(str(place), attention="eager")
    assert (loaded.name, loaded.geometry.visual_tokens) == ("striped", 144)
    assert loaded.model.config._attn_implementation == "eager"
