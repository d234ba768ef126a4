"""What the caller reads is never dropped, evidence is of the positions that layers use, and NaN is named."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.adapters.methods import Choices, Kept
from tests.adapters.stages import Watch
from tests.situations.run import switch

import headwise
from headwise.errors import BudgetError, ModelError
from headwise.pipeline import Pipeline
from headwise.plan import Merged, PruningPlan, Stage
from headwise.recipe import Recipe
from headwise.registry import Strategy

pytestmark = pytest.mark.usefixtures("no_grad")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
TEXTS = ["fastv:layer=2", "pdrop:layers=1/2/3", "uniform:layer=0", "divprune", "visionzip", "tome", "vispruner"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_that_ends_with_its_image_is_answered_from_its_last_token(tools, text):
    model, ids, images = tools["tiny_llava"]("sdpa"), tools["prompt"](5, "image"), tools["pixels"](1)
    kept = Kept()
    with headwise.attach(model, Recipe.of(text, keep=5), observers=[kept]) as attached:
        choices = Choices.watching(attached)
        choices.image_at(6)
        logits = model(input_ids=ids, pixel_values=images).logits[:, -1]
        expected = choices.logits(model, ids, images)[:, -1]
        choices.image_at(6)
        said = model.generate(input_ids=ids, pixel_values=images, max_new_tokens=1, do_sample=False)[0, -1]
    last = attached.plan.stages[-1]
    assert 15 in kept.of(0)[last.layer]
    assert len(kept.of(0)[last.layer]) == last.keep
    torch.testing.assert_close(logits, expected, **CLOSE)
    assert said == logits.argmax()


def test_everybody_else_is_chosen_as_the_strategy_says(tools):
    model, images = tools["tiny_llava"](), tools["pixels"](2)
    found = {}
    for parts in ((5, "image", 4, "image"), (5, "image", 4, "image", 3)):
        seen = []
        with headwise.attach(model, Recipe.of("uniform:layer=2", keep=4), observers=[Watch(seen)]):
            model(input_ids=tools["prompt"](*parts), pixel_values=images)
        found[parts[-1]] = seen[0].kept[0].tolist()
    assert set(found["image"]) - set(found[3]) == {31}
    assert set(found[3]) - set(found["image"]) == {max(found[3])}


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_token_of_every_row_stays_whatever_the_padding(model, tools, side):
    rows = [tools["prompt"](3, "image", seed=1), tools["prompt"](2, "image", 9, seed=2), tools["prompt"](1, "image")]
    images = tools["pixels"](3)
    batch = tools["padded"](rows, side)
    places = (batch["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    kept = Kept()
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4), observers=[kept]):
        together = model(**batch, position_ids=places, pixel_values=images).logits
        found = [kept.of(row)[2] for row in range(3)]
        for number, ids in enumerate(rows):
            alone = model(input_ids=ids, pixel_values=images[number : number + 1]).logits[0]
            torch.testing.assert_close(together[number][batch["attention_mask"][number].bool()], alone, **CLOSE)
    assert [15 in left for left in found] == [True, 15 in found[1], True]
    assert {len(left) for left in found} == {4}


def test_supervised_positions_stay_and_the_loss_is_that_of_masked_keys(model, tools):
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    labels = ids.masked_fill(ids == model.config.image_token_id, -100)
    labels[0, 9] = 7  # visual number 5 is supervised, and number 4 says it
    with headwise.attach(model, Recipe.of("uniform:layer=2", keep=6)) as attached:
        choices = Choices.watching(attached)
        choices.image_at(4)
        loss = model(input_ids=ids, pixel_values=images, labels=labels).loss
    assert {8, 9, 19} <= set(choices.entered)
    assert len(choices.entered) == 6
    logits = choices.logits(model, ids, images)[0, :-1]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, labels[0, 1:], ignore_index=-100))


@pytest.mark.parametrize(
    ("text", "asked"),
    [("uniform:layer=2", "labels"), ("fastv:layer=3", "shift_labels"), ("pdrop:layers=1/2/3", "logits_to_keep"),
     ("divprune", "indices"), ("tome", "list"), ("uniform:layer=2", "indices")],
)  # fmt: skip
def test_more_than_a_stage_may_keep_is_refused_before_any_layer_runs(tools, text, asked):
    model, ids, images = tools["tiny_llava"](), tools["prompt"](3, "image", 5), tools["pixels"](1)
    given = {
        "labels": {"labels": ids},
        "shift_labels": {"labels": ids, "shift_labels": ids},
        "logits_to_keep": {"logits_to_keep": 10},
        "indices": {"logits_to_keep": torch.arange(8, 13)},
        "list": {"logits_to_keep": [8, 9, 10, 11, 12]},
    }[asked]
    model.model.language_model.layers[0].register_forward_pre_hook(lambda *_: pytest.fail("a layer ran"))
    if text not in ("divprune", "tome"):  # which go by pictures, whose sizes come with their features
        model.model.vision_tower.register_forward_pre_hook(lambda *_: pytest.fail("the vision tower ran"))
    with (
        headwise.attach(model, Recipe.of(text, keep=4)),
        pytest.raises(BudgetError, match="visual tokens of a prompt are read"),
    ):
        model(input_ids=ids, pixel_values=images, **given)


def test_pictures_have_budgets_of_their_own_for_what_is_read(tools):
    """Six tokens of the first picture are supervised: the budget of both together would be enough, its own is not."""
    model, ids, images = tools["tiny_llava"](), tools["prompt"](3, "image", 2, "image", 5), tools["pixels"](2)
    labels = torch.full_like(ids, -100)
    labels[0, 6:11] = 7
    with headwise.attach(model, Recipe.of("uniform:layer=2", keep=8)):
        model(input_ids=ids, pixel_values=images, labels=labels)
    with (
        headwise.attach(model, Recipe.of("divprune", keep=5)),
        pytest.raises(BudgetError, match=r"6 visual tokens of a prompt are read .* before layer 0 keeps 5"),
    ):
        model(input_ids=ids, pixel_values=images, labels=labels)


@pytest.mark.parametrize("named", [4, [18, 19, 20, 21], slice(-4, None), torch.tensor([-4, -3, -2, -1])], ids=repr)
def test_positions_named_by_logits_to_keep_are_answered(model, tools, named):
    ids, images = tools["prompt"](3, "image", 2), tools["pixels"](1)
    with headwise.attach(model, Recipe.of("fastv:layer=2", keep=4)) as attached:
        choices = Choices.watching(attached)
        choices.image_at(4)
        logits = model(input_ids=ids, pixel_values=images, logits_to_keep=named).logits
    assert {18, 19} <= set(choices.entered)
    torch.testing.assert_close(logits, choices.logits(model, ids, images)[:, -4:], **CLOSE)


class _Given:
    batch, visual, keep = 1, 5, 2
    read = torch.tensor([[False, False, False, False, True]])


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (torch.tensor([[5.0, 4.0, 3.0, 2.0, float("-inf")]]), [[0, 4]]),
        (torch.tensor([[3, 0]]), [[3, 4]]),
        (torch.tensor([[4, 0]]), [[0, 4]]),
        (Merged(torch.tensor([[3, 0]]), torch.full((1, 2, 5), 0.2)), [[3, 4]]),
    ],
)
def test_any_kind_of_answer_of_any_strategy_keeps_what_is_read(outcome, expected):
    kept = Pipeline(Recipe.of("fastv")).select(Stage(2, 2, lambda _: outcome), _Given(), _Given.read)
    assert kept.positions.tolist() == expected
    if kept.weights is not None:
        assert kept.weights[0].tolist() == [pytest.approx([0.2] * 5), [0, 0, 0, 0, 1]]


def two_stages(kind: str) -> Recipe:
    """Before layer 1 every other token leaves, and before layer 3 whoever is looked at least."""

    class TwoStages:
        @headwise.hookimpl
        def token_pruning(self, geometry):
            first = Stage(1, 8, lambda evidence: (torch.arange(evidence.visual) % 2).expand(1, -1).float())
            return PruningPlan(geometry, (first, Stage(3, 4, lambda e: e.attention(kind), reads=(kind,))))

    named = Recipe.of("fastv").strategies
    own = Strategy("token_pruning", "two_stages", "this test", TwoStages())
    return Recipe(strategies={**named, "token_pruning": own}, budget=headwise.Budget(keep=4), positions="compact")


@pytest.mark.parametrize("kind", ["own", "attention", "unrotated"])
def test_evidence_of_renumbered_tokens_equals_a_stock_model_run_on_what_is_left(tools, kind):
    model = tools["tiny_llava"]("eager")
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    seen = []
    with headwise.attach(model, two_stages(kind), observers=[Watch(seen)]):
        model(input_ids=ids, pixel_values=images)
    left = torch.tensor([p for p in range(25) if not 4 <= p < 20 or p % 2 == 1])
    maps = _stock_maps(model, ids, images, left, unrotated=kind == "unrotated")
    expected = maps[3 if kind == "own" else 2][0, :, -1, 4:12]
    torch.testing.assert_close(seen[1].attention[0], expected, **CLOSE)


def _stock_maps(model, ids, images, left, unrotated):
    """Eager maps (1, h, n, n) of every layer; from layer 1 on, the tokens ``left`` are all there are."""
    language = model.model.language_model
    states = model.get_input_embeddings()(ids)
    features = torch.cat(list(model.get_image_features(pixel_values=images, return_dict=True).pooler_output))
    states[ids == model.config.image_token_id] = features
    maps = []
    for number, layer in enumerate(language.layers):
        if number == 1:
            states = states[:, left]
        length = states.shape[1]
        mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
        rotary = language.rotary_emb(states, position_ids=torch.arange(length)[None])
        normed = layer.input_layernorm(states)
        plain = (torch.ones_like(rotary[0]), torch.zeros_like(rotary[1]))
        maps.append(layer.self_attn(normed, attention_mask=mask, position_embeddings=plain if unrotated else rotary)[1])
        states = layer(states, attention_mask=mask, position_embeddings=rotary, position_ids=None)
    return maps


def test_gravity_is_corrected_at_the_positions_that_layers_use(tools):
    model = tools["tiny_llava"]("eager")
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1)
    seen, plain = [], []
    with headwise.attach(model, two_stages("unbiased"), observers=[Watch(seen)]):
        model(input_ids=ids, pixel_values=images)
    with headwise.attach(model, two_stages("attention"), observers=[Watch(plain)]):
        model(input_ids=ids, pixel_values=images)
    dim = 8
    frequencies = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    distance = 16 - torch.arange(4, 12)
    bias = torch.cos(distance[:, None] * frequencies).mean(-1).clamp_min(0.05)
    torch.testing.assert_close(seen[1].attention[0], plain[1].attention[0] / bias, **CLOSE)


@pytest.mark.parametrize("text", ["fastv:layer=2", "pdrop:layers=1/2/3", "divprune", "uniform:layer=2", "tome"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_model_that_computes_no_numbers_is_blamed_and_not_the_strategy(tools, text, wrong):
    model = copy.deepcopy(tools["tiny_llava"]("sdpa", torch.float16))
    model.model.multi_modal_projector.linear_2.bias[0] = wrong
    ids, images = tools["prompt"](3, "image", 5), tools["pixels"](1).half()
    with (
        headwise.attach(model, Recipe.of(text, keep=4)),
        pytest.raises(ModelError, match=r"the model computed NaN or infinite .* in float16.*; load it in bfloat16 or"),
    ):
        model(input_ids=ids, pixel_values=images)


def test_padding_may_be_no_number(tools):
    model = tools["tiny_llava"]("sdpa")
    batch = tools["padded"]([tools["prompt"](3, "image", 5), tools["prompt"](9)], "left")
    table = model.get_input_embeddings().weight
    with headwise.attach(model, Recipe.of("uniform:layer=0", keep=4)):
        expected = model(**batch, pixel_values=tools["pixels"](1)).logits
        table[0] = float("nan")
        logits = model(**batch, pixel_values=tools["pixels"](1)).logits
    assert torch.isfinite(expected[0]).all()
    assert logits.shape == expected.shape


@pytest.mark.parametrize(
    ("text", "reentrant"), [("fastv:layer=2", True), ("pdrop:layers=1/2/3", False), ("tome", True), ("tome", False)]
)
def test_layers_that_are_run_again_in_the_backward_pass_see_what_they_saw(tools, text, reentrant):
    model, ids, images = tools["tiny_llava"]("sdpa").train(), tools["prompt"](3, "image", 5), tools["pixels"](1)
    labels = ids.masked_fill(ids == model.config.image_token_id, -100)
    gradients = []
    with torch.enable_grad(), headwise.attach(model, Recipe.of(text, keep=4)):
        for again in (False, True):
            if again:
                switch(model, "enable")({"use_reentrant": reentrant})
                model.enable_input_require_grads()
            model.zero_grad()
            model(input_ids=ids, pixel_values=images, labels=labels).loss.backward()
            gradients.append({name: part.grad for name, part in model.named_parameters() if part.grad is not None})
    plain, found = gradients
    assert plain.keys() == found.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient)
