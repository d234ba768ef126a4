"""CLIP relevance against a stock CLIPModel, word by word; which folders it takes; and what the question is."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, PreTrainedTokenizerFast

from headwise.errors import ModelError
from headwise_adapters.vision import clip
from headwise_adapters.vision.clip import ClipRelevance

WORDS, LENGTH, WIDTH = 40, 9, 12
START, END, UNKNOWN = 41, 42, 40
# eos_token_id 2 is what old checkpoints say, and makes CLIPModel read a text off its highest token id


def tokenizer_with(first: str | None = "<s>") -> PreTrainedTokenizerFast:
    vocabulary = {f"w{i}": i for i in range(WORDS)} | {"?": UNKNOWN, "<s>": START, "</s>": END}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=first, eos_token="</s>", unk_token="?")


def stock(eos: int, width: int = WIDTH) -> CLIPModel:
    torch.manual_seed(eos)
    small = {"intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": 43, "bos_token_id": START, "eos_token_id": eos, "pad_token_id": 0}
    text = {"hidden_size": 16, "max_position_embeddings": LENGTH, **small, **ids}
    vision = {"hidden_size": width, "image_size": 16, "patch_size": 4, **small}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.4)
    return model


@pytest.fixture
def model(request) -> CLIPModel:
    return stock(getattr(request, "param", END))


@pytest.fixture
def folder(model, tmp_path) -> str:
    return str(saved(model, tmp_path / "clip"))


of_any_age = pytest.mark.parametrize("model", [END, 2], indirect=True)


def saved(model, path):
    model.save_pretrained(path)
    tokenizer_with().save_pretrained(path)
    return path


def features(*counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, WIDTH, generator=generator) for count in counts]


@torch.no_grad()
def expected(model, patches, words):
    """Cosines of one picture's patches with a text of words, each segment run through CLIP by itself."""
    room = LENGTH - 2
    segments = [words[at : at + room] for at in range(0, max(1, len(words)), room)]
    found = []
    for patch in patches:
        state = model.vision_model.post_layernorm(patch)
        view = model.visual_projection(state).tolist()
        cosines = []
        for segment in segments:
            ids = torch.tensor([[START, *segment, END]])
            word = model.text_projection(model.text_model(input_ids=ids).last_hidden_state[0, -1]).tolist()
            dot = math.fsum(a * b for a, b in zip(view, word, strict=True))
            cosines.append(dot / math.hypot(*view) / math.hypot(*word))
        found.append(math.fsum(cosines) / len(cosines))
    return found


@of_any_age
@pytest.mark.parametrize("length", [0, 1, 6, 7, 8, 14, 15, 30])
def test_cosines_are_those_of_each_segment_on_average(model, folder, length):
    words = [(7 * i + length) % WORDS for i in range(length)]
    (patches,) = features(5)
    (found,) = ClipRelevance().similarity(folder, [patches], [" ".join(f"w{i}" for i in words)])
    assert found.dtype == torch.float32
    assert expected(model, patches, words) == pytest.approx(found.tolist(), abs=1e-5)


@of_any_age
def test_short_texts_get_the_embeddings_of_the_stock_model(model, folder):
    ids = torch.tensor([[START, 3, 9, 30, END]])
    (patches,) = features(4)
    with torch.no_grad():
        words = model.get_text_features(input_ids=ids).pooler_output
        views = model.visual_projection(model.vision_model.post_layernorm(patches))
    wanted = torch.nn.functional.cosine_similarity(views, words)
    (found,) = ClipRelevance().similarity(folder, [patches], ["w3 w9 w30"])
    torch.testing.assert_close(found, wanted)


def test_the_picture_side_ends_as_the_stock_model_ends(model, folder):
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        cls = model.vision_model(pixels).last_hidden_state[0, :1]  # before the norm, as patches come
        wanted = torch.nn.functional.cosine_similarity(
            model.get_image_features(pixels).pooler_output,
            model.get_text_features(input_ids=torch.tensor([[START, 5, END]])).pooler_output,
        )
    (found,) = ClipRelevance().similarity(folder, [cls], ["w5"])
    torch.testing.assert_close(found, wanted)


def test_pictures_of_different_sizes_do_not_see_each_other(folder):
    pictures, texts = features(3, 1, 7), ["w1 w2", "w3", "w1 w2"]
    together = ClipRelevance().similarity(folder, pictures, texts)
    for picture, text, found in zip(pictures, texts, together, strict=True):
        torch.testing.assert_close(ClipRelevance().similarity(folder, [picture], [text])[0], found)


def test_half_precision_features_give_float32_and_no_gradient(folder):
    (patches,) = features(3)
    (found,) = ClipRelevance().similarity(folder, [patches.half().requires_grad_()], ["w1"])
    (wanted,) = ClipRelevance().similarity(folder, [patches.half().float()], ["w1"])
    assert (torch.float32, False) == (found.dtype, found.requires_grad)
    torch.testing.assert_close(wanted, found)


def test_a_folder_is_loaded_once_and_without_vision_layers(folder, monkeypatch):
    relevance, loads = ClipRelevance(), []
    load = clip._load
    monkeypatch.setattr(clip, "_load", lambda *arguments: loads.append(load(*arguments)) or loads[-1])
    for _ in range(3):
        relevance.similarity(folder, features(2), ["w1"])
    (loaded,) = loads
    assert not [name for name, _ in loaded.model.named_parameters() if "vision_model.encoder" in name]


def test_foreign_widths_are_refused_in_a_sentence(folder):
    with pytest.raises(ModelError) as caught:
        ClipRelevance().similarity(folder, [torch.randn(3, 10)], ["w1"])
    assert str(caught.value) == (
        f"the CLIP model in {folder} knows patch features of 12 numbers, and this model's vision tower gives 10; give"
        " the folder of the CLIP model that the tower comes from"
    )


INSTEAD = "give a folder written by CLIPModel.save_pretrained with its tokenizer, or relevance=embeddings"


def test_missing_tensors_are_named(folder):
    weights = load_file(f"{folder}/model.safetensors")
    del weights["visual_projection.weight"], weights["text_projection.weight"]
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        ClipRelevance().similarity(folder, features(1), ["w1"])
    assert str(caught.value) == (
        f"the CLIP model in {folder} lacks 2 tensors, such as text_projection.weight; {INSTEAD}"
    )


def test_broken_weights_are_refused(folder):
    with open(f"{folder}/model.safetensors", "wb") as stream:
        stream.write(b"not safetensors")
    with pytest.raises(ModelError, match=f"cannot be loaded: .*; {INSTEAD}"):
        ClipRelevance().similarity(folder, features(1), ["w1"])


def test_tokenizers_without_a_start_token_are_refused(folder):
    tokenizer_with(first=None).save_pretrained(folder)
    with pytest.raises(ModelError, match="no start or end token"):
        ClipRelevance().similarity(folder, features(1), ["w1"])


def incomplete(tmp_path):
    """Folders that hold less than a CLIP model."""
    model = stock(END)
    (tmp_path / "empty").mkdir()
    CLIPVisionModel._from_config(model.config.vision_config).save_pretrained(tmp_path / "vision alone")
    tokenizer_with().save_pretrained(tmp_path / "vision alone")
    for lacking in ("model.safetensors", "tokenizer.json", "config.json"):
        (saved(model, tmp_path / f"no {lacking}") / lacking).unlink()
    (saved(model, tmp_path / "broken") / "config.json").write_text("{")
    (saved(model, tmp_path / "unheard") / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    return [*tmp_path.iterdir(), tmp_path / "not there"]


def test_folders_that_hold_less_than_a_clip_model_are_neither_found_nor_taken(tmp_path):
    paths = incomplete(tmp_path)
    assert len(paths) == 8
    for path in paths:
        assert clip.find(SimpleNamespace(vision_config=SimpleNamespace(name_or_path=str(path)))) is None
        with pytest.raises(ModelError, match=f"no CLIP model with text tower, tokenizer and safetensors; {INSTEAD}"):
            ClipRelevance().similarity(str(path), features(1), ["w1"])


def test_the_folder_that_a_config_names_is_found(folder):
    vision = CLIPConfig.from_pretrained(folder).vision_config
    vision._name_or_path = folder
    assert folder == clip.find(SimpleNamespace(vision_config=vision))
    assert folder == clip.find(SimpleNamespace(vision_config=SimpleNamespace(name_or_path=""), mm_vision_tower=folder))


def test_hub_ids_are_looked_up_among_what_was_downloaded(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--clip" / "snapshots" / "0123"
    (tmp_path / "models--some--clip" / "refs").mkdir(parents=True)
    (tmp_path / "models--some--clip" / "refs" / "main").write_text("0123")
    saved(stock(END), snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert str(snapshot) == clip.find(SimpleNamespace(mm_vision_tower="some/clip"))
    assert clip.find(SimpleNamespace(mm_vision_tower="some/other")) is None


@pytest.mark.parametrize("config", [SimpleNamespace(), SimpleNamespace(vision_config=None, mm_vision_tower=None)])
def test_configs_that_name_no_tower_have_no_clip(config):
    assert clip.find(config) is None


IMAGE = "<image>"


@pytest.fixture
def chat() -> PreTrainedTokenizerFast:
    """A tokenizer of single characters, with special tokens that only their flag tells, and an image token."""
    letters = {letter: number for number, letter in enumerate(map(chr, range(32, 127)))} | {"\n": 95}
    inner = Tokenizer(models.WordLevel(letters, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens([AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>", IMAGE)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("<s>USER: <image><image>\nWhat is this? ASSISTANT:", "What is this?"),
        ("<s>USER: <image>\nAnd this?\nAnswer briefly. ASSISTANT: ", "And this?\nAnswer briefly."),
        ("<|im_start|>user\n<image>\nWhere?<|im_end|>\n<|im_start|>assistant\n", "Where?"),
        ("<|im_start|>user\n<image>Where?<|im_end|><|im_start|>assistant", "Where?"),
        ("<s>[INST] <image>\nHow many? [/INST]", "How many?"),
        ("<s>one <image> two <image> three<pad><pad>", "three"),
        ("<pad><pad><s><image>Who is my assistant", "Who is my assistant"),
        ("<s><image>Is assistant: a word?", "Is assistant: a word?"),
        ("<s>What is this? <image>", "What is this?"),
        ("<s>No picture here ASSISTANT:", "No picture here"),
        ("<s><image>", ""),
    ],
)
def test_question_is_what_stands_behind_the_last_image(chat, prompt, question):
    ids = chat(prompt, add_special_tokens=False)["input_ids"]
    assert [question] == clip.questions(chat, [ids], chat.convert_tokens_to_ids(IMAGE))


def test_questions_of_tensors_are_read_row_by_row(chat):
    rows = torch.tensor([chat(text, add_special_tokens=False)["input_ids"] for text in ("<image>ab", "c<image>d")])
    assert clip.questions(chat, rows, chat.convert_tokens_to_ids(IMAGE)) == ["ab", "d"]


def test_tokenizer_comes_from_the_folder_of_the_model(tmp_path):
    tokenizer_with().save_pretrained(tmp_path)
    found = clip.tokenizer_of(SimpleNamespace(config=SimpleNamespace(name_or_path=str(tmp_path))))
    assert found("w3 w4", add_special_tokens=False)["input_ids"] == [3, 4]


@pytest.mark.parametrize("name", ["", "not/there", "/no/such/folder"])
def test_models_without_a_tokenizer_are_told_what_else_there_is(name):
    with pytest.raises(ModelError, match=r"tokenizer of this model cannot be loaded: .*or give relevance=embeddings"):
        clip.tokenizer_of(SimpleNamespace(config=SimpleNamespace(name_or_path=name)))
