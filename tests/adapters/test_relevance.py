"""CDPruner on a whole model: which words it is told to relate the picture to, and what the record says of that."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.test_clip import WORDS, saved, stock, tokenizer_with
from tests.reference import cdpruner as reference

import headwise
from headwise import ModelError, Recipe
from headwise.registry import installed, load, only
from headwise_adapters.vision.clip import ClipRelevance


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def folder(tmp_path):
    """A CLIP model whose patch features are as wide as the tiny LLaVA's."""
    return str(saved(stock(WORDS + 2, width=16), tmp_path / "clip"))


@pytest.fixture
def asked(tools):
    """Two prompts with different questions and their images."""
    rows = [tools["prompt"](2, "image", 4, seed=1), tools["prompt"](3, "image", 6, seed=2)]
    return {**tools["padded"](rows, "left"), "pixel_values": tools["pixels"](2)}, rows


def observed(model, inputs, *texts, **budget):
    """What the recorder saw of each row."""
    recorder = load(only("observers", "recorder", installed("observers")))()
    with headwise.attach(model, Recipe.of(*texts, **budget), observers=[recorder]):
        model(**inputs)
    return recorder.take()


def reloaded(tools, path, vision_name=None):
    """The tiny model as loaded from a folder that holds a tokenizer."""
    model = tools["tiny_llava"]("sdpa")
    model.config.name_or_path = str(path)
    if vision_name is not None:
        model.config.vision_config.name_or_path = vision_name
    tokenizer_with().save_pretrained(path)
    return model


@pytest.mark.parametrize("named", ["by the user", "by the model's config"])
def test_each_question_is_related_to_its_own_picture_by_clip(tools, tmp_path, folder, asked, named):
    inputs, rows = asked
    model = reloaded(tools, tmp_path / "model", folder if named == "by the model's config" else None)
    text = f"cdpruner:clip={folder}" if named == "by the user" else "cdpruner"
    seen = observed(model, inputs, text, keep=5)
    tower = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    projected = model.model.multi_modal_projector(tower)
    tokenizer = tokenizer_with()
    for row, ids in enumerate(rows):
        question = tokenizer.decode(ids[0, -(4 if row == 0 else 6) :])
        (cosines,) = ClipRelevance().similarity(folder, [tower[row]], [question])
        relevance = reference.scaled((-cosines).tolist())
        expected, _ = reference.by_determinant(projected[row].tolist(), relevance, 5)
        assert sorted(expected) == seen[row].kept
        assert seen[row].notes["relevance"] == "clip"


def test_without_a_clip_model_words_are_taken_from_the_language_model_and_the_record_says_so(model, asked):
    inputs, _ = asked
    seen = observed(model, inputs, "cdpruner", keep=5)
    assert [row.notes["relevance"] for row in seen.values()] == ["embeddings", "embeddings"]


def test_a_model_that_came_from_nowhere_cannot_be_read_by_clip(model, asked, folder):
    inputs, _ = asked
    with pytest.raises(ModelError, match="or give relevance=embeddings"):
        observed(model, inputs, f"cdpruner:clip={folder}", keep=5)


def test_clip_is_wanted_and_not_to_be_had(model, asked):
    inputs, _ = asked
    with pytest.raises(ModelError, match="give one with clip=FOLDER, or relevance=embeddings"):
        observed(model, inputs, "cdpruner:relevance=clip", keep=5)


def test_embeddings_instead_of_ids_have_no_question(tools, tmp_path, folder):
    model = reloaded(tools, tmp_path / "model")
    ids = tools["prompt"](2, "image", 4)
    embeds = model.get_input_embeddings()(ids)
    with pytest.raises(ModelError, match="give it input_ids"):
        observed(
            model, {"inputs_embeds": embeds, "pixel_values": tools["pixels"](1)}, f"cdpruner:clip={folder}", keep=5
        )
