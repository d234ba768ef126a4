"""The demo model: tokenizer, packed training forward, growth, resumable training, and the weights that ship."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from headwise_lab.demo.llava.batches import make_batch, normalize
from headwise_lab.demo.llava.evaluate import anchors_right, evaluate, inputs_of, is_right, lines, load
from headwise_lab.demo.llava.model import build, grow
from headwise_lab.demo.llava.packed import OPENING, image_features, question_logits
from headwise_lab.demo.llava.stages import FIRST_LAYERS, PLAN, TrainingStage
from headwise_lab.demo.llava.tokenizer import (
    EOS_ID,
    IMAGE_ID,
    QUESTION_TOKENS,
    SUFFIX,
    UNKNOWN_ID,
    answer_id,
    build_tokenizer,
    prompt,
    question_ids,
)
from headwise_lab.demo.llava.train import LlavaRun, export
from headwise_lab.demo.training import train
from headwise_lab.models import SHIPPED, shipped
from headwise_lab.scenes import KINDS, TOKENS, held_out

FLOORS = {"exist": 0.9, "color": 0.9, "shape": 0.9, "text": 0.9, "count": 0.7, "where": 0.9, "relation": 0.85}
PER_KIND = 40
MIX = {"exist": 1, "count": 1, "relation": 1}
TINY = (
    TrainingStage("see", 1, 4, 2, (3, 3), (0.004, 0.003), aux=1.0, place=0.5, batch=2, warmup=2),
    TrainingStage("ask", 2, 2, 2, (3, 4), (0.004, 0.004), aux=0.3, place=0.1, batch=1, mix=MIX),
    TrainingStage(
        "end", 3, 2, 2, (3, 4), (0.003, 0.001), aux=0.1, place=0.1, batch=1, mix=MIX, layers=(0, 1, 1), stop=1.0
    ),
)


def lively(layers: int):
    """A model whose every matrix matters; freshly built ones leave the residual stream alone."""
    model = build(layers, seed=0)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.ndim == 2 and not weight.any():
            torch.nn.init.normal_(weight, std=0.05, generator=generator)
    return model


@pytest.fixture(scope="module")
def some():
    """One example of each kind."""
    return list(held_out(21, 1))


@pytest.fixture(scope="module")
def demo():
    """The shipped model and its processor."""
    return load(shipped("demo-llava"))


# --- tokenizer and processor


def test_every_question_is_five_known_tokens_and_two_of_prompt():
    for example in held_out(22, 60):
        assert len(question_ids(example.question.text)) == QUESTION_TOKENS
        assert answer_id(example.question.answer) != UNKNOWN_ID


def test_phrases_are_tokens_and_the_longest_wins():
    tokens = build_tokenizer().encode(prompt("Is the red object left of the circle?")).tokens
    expected = ["Is the", "red", "object left of the", "circle", "?", SUFFIX, "ASSISTANT:"]
    assert tokens == ["<s>", "USER:", "<image>", *expected]


def test_a_phrase_does_not_match_inside_a_word():
    assert build_tokenizer().encode("Is there redness, words?").tokens[1:] == ["<unk>"] * 5 + ["?"]


def test_decoding_joins_tokens_with_spaces(demo):
    tokenizer = demo[1].tokenizer
    ids = tokenizer("What color is the circle in the image?")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "What color is the circle in the image ?"


def test_the_shipped_tokenizer_is_the_one_trained_with(demo):
    assert demo[1].tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_the_processor_makes_the_training_sequence(demo, some):
    inputs = inputs_of(demo[1], some)
    expected = [[*OPENING, *[IMAGE_ID] * TOKENS, *question_ids(example.question.text)] for example in some]
    assert inputs["input_ids"].tolist() == expected


def test_the_processor_makes_the_training_pixels(demo, some):
    expected = normalize(np.stack([example.pixels for example in some]))
    torch.testing.assert_close(inputs_of(demo[1], some)["pixel_values"], expected, rtol=0, atol=1e-6)


def test_the_chat_template_writes_the_prompt(demo):
    question = "What digit is written in the image?"
    content = [{"type": "image"}, {"type": "text", "text": f"{question}\n{SUFFIX}"}]
    messages = [{"role": "user", "content": content}]
    assert demo[1].apply_chat_template(messages, add_generation_prompt=True) == prompt(question)


def test_unequal_prompts_are_padded_on_the_left(demo, some):
    images = [example.pixels for example in some[:2]]
    texts = [prompt("Is there a red circle in the image?"), "USER: <image>\nred ASSISTANT:"]
    mask = demo[1](text=texts, images=images, return_tensors="pt", padding=True)["attention_mask"]
    assert mask[1].tolist() == [0] * 5 + [1] * (mask.size(1) - 5)


# --- the packed forward, growth, Muon


@torch.no_grad()
def test_packed_logits_equal_the_stock_forward():
    model = lively(3)
    batch = make_batch(attrs.evolve(PLAN[1], batch=2), 0)
    asked = torch.cat([batch.questions, batch.answers[..., None]], dim=-1)
    packed = question_logits(model, image_features(model, batch.pixels), asked)
    for image, question in ((0, 0), (0, 17), (1, 29)):
        ids = torch.tensor([[*OPENING, *[IMAGE_ID] * TOKENS, *asked[image, question].tolist()]])
        stock = model(input_ids=ids, pixel_values=batch.pixels[image : image + 1]).logits[0, -2:]
        torch.testing.assert_close(packed[image, question], stock, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_packed_bfloat16_stays_near_float32():
    model = lively(2)
    batch = make_batch(attrs.evolve(PLAN[1], batch=1), 0)
    exact, rough = (
        question_logits(model, image_features(model, batch.pixels, dtype), batch.questions, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0 < (exact - rough).abs().max() < 0.1 * exact.std()


@torch.no_grad()
def test_growth_leaves_the_function_unchanged():
    model = lively(FIRST_LAYERS)
    batch = make_batch(attrs.evolve(PLAN[1], batch=1), 0)
    features = image_features(model, batch.pixels)
    before = question_logits(model, features, batch.questions)
    sources = next(stage.layers for stage in PLAN if stage.layers)
    grow(model, sources)
    assert len(model.model.language_model.layers) == model.config.text_config.num_hidden_layers == 12
    torch.testing.assert_close(question_logits(model, features, batch.questions), before, rtol=0, atol=0)


def test_only_matrices_of_layers_are_made_orthogonal():
    run = LlavaRun(TINY, seed=0, dtype=torch.float32)
    names = {id(weight): name for name, weight in run.named_weights().items()}
    chosen, rest = (
        {names[id(weight)] for group in run.optimizers[label].param_groups for weight in group["params"]}
        for label in ("muon", "adam")
    )
    assert chosen | rest == set(names.values())
    assert not chosen & rest
    assert chosen == {name for name, weight in run.named_weights().items() if ".layers." in name and weight.ndim == 2}


# --- training


def test_a_batch_depends_on_stage_and_step_alone():
    stage = attrs.evolve(PLAN[2], batch=2)
    first, again, other = make_batch(stage, 3), make_batch(stage, 3), make_batch(stage, 4)
    for field in attrs.fields(type(first)):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name))
    assert not torch.equal(first.sprites, other.sprites)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts."""
    run = LlavaRun(TINY, seed=0, dtype=torch.float32)
    train(run, tmp_path_factory.mktemp("whole"))
    return run


@pytest.mark.parametrize("interrupted_after", [3, 4, 5])
def test_a_resumed_run_equals_an_uninterrupted_one(interrupted_after, whole, tmp_path):
    half, rest = (LlavaRun(TINY, seed=0, dtype=torch.float32) for _ in range(2))
    train(half, tmp_path / "halves", stop_after=interrupted_after)
    resumed = train(rest, tmp_path / "halves", resume=True)
    assert (resumed.images, resumed.questions, resumed.averages) == (whole.images, whole.questions, whole.averages)
    expected = whole.named_weights()
    for name, weight in resumed.named_weights().items():
        assert torch.equal(weight, expected[name]), name


def test_an_exported_model_answers_like_the_trained_one(tmp_path, some):
    model = lively(2)
    export(model, tmp_path)
    loaded, processor = load(tmp_path)
    with torch.no_grad():
        inputs = inputs_of(processor, some)
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, rtol=0, atol=0.02)


# --- the shipped weights


def test_shipped_models_exist_and_others_are_named_in_the_error():
    assert all((shipped(name) / "model.safetensors").is_file() for name in SHIPPED)
    with pytest.raises(ValueError, match="demo-llava"):
        shipped("demo-lava")


def test_the_shipped_weights_are_small():
    assert (shipped("demo-llava") / "model.safetensors").stat().st_size < 12e6


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_model_answers_held_out_questions(kind, demo):
    right = is_right(*demo, list(held_out(23, PER_KIND, [kind])))
    assert right.mean() >= FLOORS[kind]


def test_generation_stops_after_one_word(demo, some):
    model, processor = demo
    inputs = inputs_of(processor, some)
    new = model.generate(**inputs)[:, inputs["input_ids"].size(1) :]
    assert new[:, 1].tolist() == [EOS_ID] * len(some)
    assert new.size(1) == 2


def test_pruning_nothing_changes_no_answer(demo, some):
    noise = torch.Generator().manual_seed(0)
    full = is_right(*demo, some)
    for right in anchors_right(*demo, some, noise, layer=2, keep=TOKENS).values():
        assert torch.equal(right, full)


def test_attention_keeps_what_the_answer_needs(demo):
    report = evaluate(*demo, per_kind=10, keeps=[16])
    accuracy = {name: table["mean"][0] for name, table in report["keep"]["16"]["accuracy"].items()}
    assert accuracy["fastv"] > accuracy["random"] + 0.2
    assert accuracy["oracle"] > accuracy["anti-oracle"] + 0.2
    assert any("paired" in line for line in lines(report))
