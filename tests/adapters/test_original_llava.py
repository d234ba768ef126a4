"""Checkpoints in the layout of LLaVA's authors: the same model, the same pictures, the same tokens, or one sentence."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.adapters import original_checkpoint as original
from transformers import AutoProcessor, GenerationConfig, LlavaForConditionalGeneration

import headwise
from headwise.attachment import adapter_for
from headwise.recipe import Recipe
from headwise_adapters.checkpoints import original_processor
from headwise_adapters.checkpoints.original_llava import OriginalLlava

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and"
    " polite answers to the user's questions."
)
NEW = set(range(len(original.VOCABULARY), original.GROWN))
LAWS = settings(deadline=None, max_examples=25, derandomize=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return original.write(tmp_path_factory.mktemp("original") / "llava-tiny")


@pytest.fixture(scope="module")
def pair(folder):
    model, processor, _ = OriginalLlava().load(folder)
    return model, processor


@pytest.fixture(scope="module")
def processor(pair):
    return pair[1]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(drawn)


def asked(processor, *questions: str):
    texts = [f"USER: <image>\n{question} ASSISTANT:" for question in questions]
    images = [noise(40 + 7 * i, 30) for i in range(len(questions))]
    return processor(text=texts, images=images, return_tensors="pt", padding=True)


@pytest.mark.parametrize(
    ("kind", "parts", "tower", "feature", "layer"),
    [
        ("safetensors", 2, "inside", "patch", -2),
        ("safetensors", 1, "folder", "cls_patch", -1),
        ("bin", 3, "inside", "cls_patch", -2),
        ("bin", 1, "folder", "patch", -1),
    ],
)
def test_logits_are_those_of_the_hugging_face_twin(tmp_path, kind, parts, tower, feature, layer):
    stored, strategy = original.tensors(), {"patch": "default", "cls_patch": "full"}[feature]
    changes = {"mm_vision_select_feature": feature, "mm_vision_select_layer": layer}
    if tower == "folder":
        original.write_tower(tmp_path / "clip", stored, kind)
        changes["mm_vision_tower"] = "../clip"
    own = stored if tower == "inside" else original.without_tower(stored)
    place = original.write(tmp_path / "llava", own, kind, parts, **changes)
    model, processor, _ = OriginalLlava().load(place)
    given = asked(processor, "What color is the x?", "What?")
    assert (given["input_ids"] == original.IMAGE).sum(dim=1).tolist() == [original.VISUAL + (strategy == "full")] * 2
    with torch.no_grad():
        expected = original.twin(stored, layer, strategy)(**given).logits
        assert torch.equal(model(**given).logits, expected)
    assert expected.std() > 0.1
    assert model.config.image_seq_length == original.VISUAL + (strategy == "full")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_and_attention_are_those_asked_for(folder, dtype):
    model, _, _ = OriginalLlava().load(folder, dtype, "eager")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    assert model.config.text_config._attn_implementation == "eager"


def test_rotary_frequencies_are_the_configured_ones(tmp_path):
    changes = {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}, "max_position_embeddings": 2048}
    model, _, _ = OriginalLlava().load(original.write(tmp_path / "long", **changes))
    width = original.HIDDEN // original.HEADS
    expected = 5e5 ** -(torch.arange(0, width, 2) / width) / 4
    assert torch.allclose(expected, model.model.language_model.rotary_emb.inv_freq)
    assert model.config.text_config.max_position_embeddings == 2048


def test_fastv_prunes_it_as_its_twin(pair):
    model, processor = pair
    given = asked(processor, "What color is the x?", "What?")
    twin = original.twin(original.tensors())
    assert adapter_for(model).geometry.visual_tokens == original.VISUAL
    with torch.no_grad():
        found = []
        for one in (twin, model):
            with headwise.attach(one, Recipe.of("fastv:layer=1", keep=4)):
                found.append(one(**given).logits)
        assert torch.equal(*found)
        assert not torch.equal(found[0], twin(**given).logits)


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": True},
        {"num_beams": 3},
        {"generation_config": GenerationConfig(do_sample=False, max_new_tokens=4, pad_token_id=original.PAD)},
    ],
)
def test_new_ids_are_never_generated_even_where_they_win(folder, how):
    model, processor, _ = OriginalLlava().load(folder)
    head = model.lm_head.weight.data
    head[: len(original.VOCABULARY)] = 0
    head[len(original.VOCABULARY) :: 2] = torch.randn(original.HIDDEN, generator=torch.Generator().manual_seed(1))
    head[len(original.VOCABULARY) + 1 :: 2] = -head[original.IMAGE]
    given = asked(processor, "What color?", "What?")
    with torch.no_grad():
        assert set(model(**given).logits[:, -1].argmax(dim=-1).tolist()) <= NEW
    chosen = how if "generation_config" in how else {"max_new_tokens": 4, **how}
    written = model.generate(**given, **chosen)[:, given["input_ids"].shape[1] :]
    assert written.shape[1] > 0
    assert not (set(written.flatten().tolist()) - {original.PAD}) & NEW
    assert original.PAD not in written[:, 0].tolist()  # it may only fill up a row that has ended
    with headwise.attach(model, Recipe.of("fastv:layer=1", keep=4)):
        pruned = model.generate(**given, **chosen)[:, given["input_ids"].shape[1] :]
    assert not (set(pruned.flatten().tolist()) - {original.PAD}) & NEW


def test_the_vocabulary_grows_by_mean_rows_to_a_multiple_of_64(pair):
    model, processor = pair
    stored = original.tensors()
    assert processor.tokenizer.convert_tokens_to_ids(["<image>", "<pad>"]) == [original.IMAGE, original.PAD]
    assert (model.config.image_token_id, processor.tokenizer.pad_token_id) == (original.IMAGE, original.PAD)
    for rows, name in ((model.get_input_embeddings(), "model.embed_tokens"), (model.lm_head, "lm_head")):
        assert rows.weight.shape == (original.GROWN, original.HIDDEN)
        before = stored[f"{name}.weight"].float()
        assert torch.equal(rows.weight[: len(before)], before)
        assert torch.allclose(rows.weight[len(before) :], before.mean(dim=0), atol=1e-3)
    assert set(model.generation_config.suppress_tokens) == NEW
    assert model.generation_config.eos_token_id == 2


@pytest.mark.parametrize("size", [(24, 24), (50, 31), (31, 50), (25, 24), (90, 13), (7, 11)])
@pytest.mark.parametrize("aspect", ["pad", "square"])
def test_pictures_are_prepared_as_the_authors_do(tmp_path, size, aspect):
    picture = noise(*size)
    found = original_processor.picture_processor(original.SIDE, aspect == "pad", None)(picture, return_tensors="pt")
    if aspect == "pad":
        side = max(size)
        square = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in CLIP_MEAN))
        square.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
        picture = square
    short = min(picture.size)
    scaled = tuple(int(original.SIDE * length / short) for length in picture.size)
    picture = picture.resize(scaled, Image.Resampling.BICUBIC)
    left, top = ((length - original.SIDE) // 2 for length in scaled)
    picture = picture.crop((left, top, left + original.SIDE, top + original.SIDE))
    pixels = (np.asarray(picture, dtype=np.float64) / 255 - CLIP_MEAN) / CLIP_STD
    assert torch.allclose(torch.from_numpy(pixels).permute(2, 0, 1).float(), found["pixel_values"][0], atol=1e-5)


@pytest.mark.parametrize(("aspect", "padded"), [("pad", True), ("square", False), (None, False)])
def test_squares_are_made_where_the_checkpoint_says_so(tmp_path, aspect, padded):
    stored = original.tensors()
    original.write_tower(tmp_path / "clip", stored, image_mean=[0.5, 0.25, 0.125], image_std=[1, 1, 1])
    place = original.write(
        tmp_path / "llava", stored, image_aspect_ratio=aspect, mm_vision_tower=str(tmp_path / "clip")
    )
    _, processor, _ = OriginalLlava().load(place)
    pixels = processor.image_processor(Image.new("RGB", (60, 20)), return_tensors="pt")["pixel_values"][0]
    # Black is the mean below 0, and the border's colour is the mean, rounded down to a whole number.
    corner = [int(255 * mean) / 255 - mean for mean in (0.5, 0.25, 0.125)] if padded else [-0.5, -0.25, -0.125]
    assert pixels[:, 0, 0].tolist() == pytest.approx(corner, abs=1e-6)
    assert pixels[:, original.SIDE // 2, original.SIDE // 2].tolist() == pytest.approx([-0.5, -0.25, -0.125])


def sentencepiece_ids(text: str, prefix: bool = True) -> list[int]:
    """What SentencePiece's BPE makes of a text: a space in front, the earliest merge first, bytes for the unknown."""
    parts = list(("▁" if prefix else "") + text.replace(" ", "▁"))
    ranks = {pair: rank for rank, pair in enumerate(original.merges())}
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not pairs:
            break
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids = []
    for part in parts:
        known = [part] if part in original.VOCABULARY else [f"<0x{byte:02X}>" for byte in part.encode()]
        ids += [original.VOCABULARY.index(token) for token in known]
    return ids


def piecewise(prompt: str) -> list[int]:
    """Token ids as the authors make them: texts around images on their own, one <s> in front, nothing of an empty one.

    A text behind </s> has no space put before it.
    """
    ids = [1]
    for number, piece in enumerate(prompt.split("<image>")):
        ids += [original.IMAGE] if number else []
        for turn, text in enumerate(piece.split("</s>")):
            ids += [2] if turn else []
            ids += sentencepiece_ids(text, prefix=turn == 0) if text else []
    return ids


@pytest.mark.parametrize(
    "prompt",
    [
        f"{SYSTEM} USER: <image>\nWhat color is the é? ASSISTANT:",
        "USER: <image>\nWhat? ASSISTANT: the</s>USER: What color? ASSISTANT:",
        "USER: What is <image> and what is <image> ASSISTANT:",
        "USER: <image><image>\n\n  What is it? ASSISTANT:",
        "<image>\nWhat",
        "USER: What is in <image>",
        "USER: <image></s>",
        "USER: What color",
    ],
)
def test_tokens_are_those_of_the_pieces_around_images(processor, prompt):
    assert processor.tokenizer(prompt)["input_ids"] == piecewise(prompt)


@LAWS
@given(
    st.lists(st.sampled_from(["<image>", "</s>", "\n", " ", "What", "color", " the", "USER:", "é", "x"]), max_size=12)
)
def test_tokens_are_those_of_the_pieces_whatever_stands_around_images(processor, parts):
    # "A", because Llama tokenizers of transformers take a space in front of a whole text for the one they put there.
    prompt = "A" + "".join(parts)
    ids = processor.tokenizer(prompt)["input_ids"]
    assert ids == piecewise(prompt)


def test_the_processor_spreads_one_image_over_its_tokens(processor):
    prompt = f"{SYSTEM} USER: <image>\nWhat color? ASSISTANT:"
    ids = processor(text=prompt, images=noise(30, 20), return_tensors="pt")["input_ids"][0].tolist()
    expected = piecewise(prompt)
    where = expected.index(original.IMAGE)
    assert ids == expected[:where] + [original.IMAGE] * original.VISUAL + expected[where + 1 :]


def test_the_prompt_is_vicuna_v1(processor):
    picture, first = {"type": "image"}, {"type": "text", "text": "What color?"}
    turns = [{"role": "user", "content": [picture, first]}]
    told = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert told == f"{SYSTEM} USER: <image>\nWhat color? ASSISTANT:"
    turns += [
        {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
        {"role": "user", "content": "And the <b>?"},
    ]
    told = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert told == f"{SYSTEM} USER: <image>\nWhat color? ASSISTANT: Red.</s>USER: And the <b>? ASSISTANT:"
    told = processor.apply_chat_template([{"role": "system", "content": "Be brief."}, *turns[:2]])
    assert told == "Be brief. USER: <image>\nWhat color? ASSISTANT: Red.</s>"


def test_the_template_as_tokens_has_one_start(processor):
    turns = [{"role": "user", "content": [{"type": "text", "text": "What color?"}]}]
    ids = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    assert ids[0] == piecewise(f"{SYSTEM} USER: What color? ASSISTANT:")


def test_answers_are_decoded_without_the_added_tokens(processor):
    ids = [original.IMAGE, *sentencepiece_ids("What color é"), 2, original.PAD]
    assert processor.tokenizer.decode(ids, skip_special_tokens=True).strip() == "What color é"


def test_saved_it_is_an_ordinary_hugging_face_model(pair, tmp_path):
    model, processor = pair
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = LlavaForConditionalGeneration.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    given = asked(processor, "What color is the x?")
    stored = asked(reader, "What color is the x?")
    assert torch.equal(given["input_ids"], stored["input_ids"])
    assert torch.allclose(given["pixel_values"], stored["pixel_values"], atol=1e-6)
    with torch.no_grad():
        assert torch.equal(model(**given).logits, again(**given).logits)
    assert set(again.generation_config.suppress_tokens) == NEW


def test_a_tokenizer_of_sentencepiece_is_read(tmp_path, folder):
    import sentencepiece

    text = [f"{SYSTEM} USER: What color is the circle? ASSISTANT: red", "Answer with a single word. Why not?"]
    place = original.write(tmp_path / "llava")
    (place / "tokenizer.json").unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 20), model_prefix=str(place / "tokenizer"), vocab_size=len(original.VOCABULARY),
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    reader = sentencepiece.SentencePieceProcessor(model_file=str(place / "tokenizer.model"))
    tokenizer = original_processor.tokenizer_of(place)
    before, after = f"{SYSTEM} USER: ", "\nWhat é color is the circle? ASSISTANT:"
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert image == reader.get_piece_size()
    expected = [1, *reader.encode(before), image, *reader.encode(after)]
    assert tokenizer(f"{before}<image>{after}")["input_ids"] == expected


@pytest.mark.parametrize("name", ["sentencepiece", "protobuf"])
def test_without_a_reader_of_sentencepiece_one_is_told_what_to_type(tmp_path, monkeypatch, name):
    module = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}[name]
    monkeypatch.setattr(original_processor, "find_spec", lambda asked: None if asked == module else asked)
    place = original.write(tmp_path / "llava")
    (place / "tokenizer.json").rename(place / "tokenizer.model")
    assert refused(place) == f"reading its tokenizer.model needs {name}; run: pip install sentencepiece protobuf"


def refused(place) -> str:
    with pytest.raises(headwise.ModelError) as caught:
        OriginalLlava().load(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mm_projector_type": "linear"}, "gives mm_projector_type='linear', and of original checkpoints only"),
        ({"mm_projector_type": None}, "gives mm_projector_type=None, and of"),
        ({"mm_projector_type": "mlp3x_gelu"}, "mlp2x_gelu is opened; take the model in its Hugging Face form"),
        ({"model_type": "llava_mistral"}, "model_type='llava_mistral'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio='anyres'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end=True"),
        ({"mm_vision_select_feature": "cls"}, "LLaVA-1.5's patch or cls_patch is opened"),
        ({"s2": True}, "s2=True"),
        ({"hidden_size": None}, "config.json gives hidden_size=None; wanted a whole number"),
        ({"mm_vision_select_layer": None}, "config.json gives mm_vision_select_layer=None; wanted"),
        ({"vocab_size": 4000}, "model.embed_tokens.weight has 386 rows and config.json gives vocab_size=4000"),
        ({"vocab_size": 300}, "its tokenizer knows 386 tokens and its config.json 300"),
        ({"num_hidden_layers": 4}, "lack 9 of the model's tensors, such as model.layers.3.self_attn.q_proj.weight"),
        ({"num_hidden_layers": 2}, "holds model.layers.2."),
        ({"intermediate_size": 40}, "is stored and configured in different shapes: (48, 32) and (40, 32)"),
        ({"mm_vision_tower": None}, "config.json gives mm_vision_tower=None; wanted the folder or hub id"),
    ],
)
def test_checkpoints_that_are_something_else_are_refused_in_one_sentence(tmp_path, changes, told):
    assert told.replace("386", str(len(original.VOCABULARY))) in refused(original.write(tmp_path / "llava", **changes))


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("model.mm_projector.2.bias", "lack 1 of the model's tensors, such as model.mm_projector.2.bias"),
        ("lm_head.weight", "lack 1 of the model's tensors, such as lm_head.weight"),
        (f"{original.TOWER}pre_layrnorm.bias", f"such as {original.TOWER}pre_layrnorm.bias"),
        (f"{original.TOWER}embeddings.patch_embedding.weight", "tower within the checkpoint lacks embeddings.patch"),
    ],
)
def test_missing_tensors_are_named_as_the_checkpoint_names_them(tmp_path, gone, told):
    stored = {name: tensor for name, tensor in original.tensors().items() if name != gone}
    assert told in refused(original.write(tmp_path / "llava", stored))


def test_tensors_of_another_model_are_named(tmp_path):
    stored = original.tensors() | {"model.image_newline": torch.zeros(original.HIDDEN)}
    assert "holds model.image_newline, and LLaVA-1.5 has nothing of" in refused(original.write(tmp_path / "a", stored))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("openai/clip-vit-large-patch14-336", "is no folder and not within the checkpoint, nor to be had from the hub"),
        ("../nowhere/clip", "is no folder and not within the checkpoint; put a CLIP model there, or its folder as"),
    ],
)
def test_a_tower_that_is_nowhere_is_told_by_name(tmp_path, monkeypatch, name, told):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    stored = original.without_tower(original.tensors())
    sentence = refused(original.write(tmp_path / "llava", stored, mm_vision_tower=name))
    assert name in sentence
    assert told in sentence


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_tower_on_the_hub_is_fetched(tmp_path, monkeypatch, kind):
    import huggingface_hub

    stored = original.tensors()
    place = original.write_tower(tmp_path / "hub", stored, kind)
    asked_for = []

    def fetch(name, allow_patterns):
        asked_for.append((name, *allow_patterns))
        return str(place)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    own = original.without_tower(stored)
    model, _, _ = OriginalLlava().load(original.write(tmp_path / "llava", own, mm_vision_tower="someone/a-clip"))
    expected = original.twin(stored).model.vision_tower.state_dict()
    assert all(torch.equal(expected[name], found) for name, found in model.model.vision_tower.state_dict().items())
    assert asked_for[0] == ("someone/a-clip", "*.json", "*.safetensors")
    assert asked_for[1:] == {"safetensors": [], "bin": [("someone/a-clip", "pytorch_model*.bin")]}[kind]


def test_a_tower_that_is_no_clip_is_refused(tmp_path):
    original.write_tower(tmp_path / "siglip", original.tensors())
    (tmp_path / "siglip" / "config.json").write_text('{"model_type": "siglip_vision_model"}')
    stored = original.without_tower(original.tensors())
    place = original.write(tmp_path / "llava", stored, mm_vision_tower="../siglip")
    assert "is no CLIP model; wanted a CLIPModel or CLIPVisionModel" in refused(place)


def test_weights_that_are_not_whole_are_told(tmp_path):
    place = original.write(tmp_path / "llava", kind="bin", parts=2)
    (place / "pytorch_model-00002-of-00002.bin").unlink()
    assert "index.json names pytorch_model-00002-of-00002.bin, which is not in" in refused(place)
    index = place / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"lm_head.weight": "../../elsewhere.bin"}}')
    assert "names '../../elsewhere.bin'; wanted files beside it" in refused(place)
    index.write_text('{"weights": 1}')
    assert "is no index of weights" in refused(place)
    index.unlink()
    assert "there are no weights in" in refused(place)


class Surprise:
    """What a weights file must never bring to life."""

    def __reduce__(self):
        return (warnings.warn, ("unpickled",))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"lm_head.weight": Surprise()}, "holds other things than tensors, and those are never loaded"),
        ({"lm_head.weight": 3}, "is no state dict"),
        ([1.0], "is no state dict"),
    ],
)
def test_nothing_but_tensors_is_unpickled(tmp_path, content, told):
    place = original.write(tmp_path / "llava", kind="bin", parts=1)
    torch.save(content, place / "pytorch_model.bin")
    assert refused(place).startswith(f"pytorch_model.bin {told}")


def test_weights_of_an_old_pytorch_are_read(tmp_path, pair):
    place = original.write(tmp_path / "llava", kind="bin", parts=1)
    torch.save(original.tensors(), place / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    model, _, _ = OriginalLlava().load(place)
    assert torch.equal(model.lm_head.weight, pair[0].lm_head.weight)


def test_safetensors_are_preferred(tmp_path):
    place = original.write(tmp_path / "llava", kind="safetensors", parts=1)
    (place / "pytorch_model.bin").write_bytes(b"nothing")
    _, _, read = OriginalLlava().load(place)
    names = [path.name for path in read]
    assert names == ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]


def test_without_a_tokenizer_one_is_asked_for(tmp_path):
    place = original.write(tmp_path / "llava")
    (place / "tokenizer.json").unlink()
    assert "there is neither tokenizer.json nor tokenizer.model in" in refused(place)


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (original.config(), True),
        (original.config(model_type="llava_llama"), True),
        (original.config(model_type="llava_mistral", architectures=["LlavaMistralForCausalLM"]), True),
        (original.config(mm_vision_tower=None), True),
        ({"model_type": "llama"}, False),
        (json.loads(original.twin(original.tensors()).config.to_json_string()), False),
    ],
)
def test_the_layout_is_recognised_by_its_config(told, known):
    assert OriginalLlava().recognises(told) == known
