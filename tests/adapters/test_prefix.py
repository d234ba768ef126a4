"""What recipes share is computed once, and nobody can tell: logits, choices and caches are equal to the bit."""

from __future__ import annotations

import pytest
import torch
from tests.adapters.methods import IMAGE, METHODS, Kept, recipe_of, write_weights
from tests.adapters.vision_models import VIDEO, next_prompt, qwen_prompt, tiny_next, tiny_qwen
from tests.adapters.vision_models import batch as batch_of

import headwise
from headwise.attachment import adapter_for
from headwise_adapters.pruning.prefix import Prefix

KEY = "batch"
TOWER_WATCHED = {"vision", "clip"}
pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def batch(tools):
    """Three padded prompts with one image each."""
    rows = [tools["prompt"](count, "image", 5, seed=count) for count in (3, 1, 6)]
    return {**tools["padded"](rows, "left"), "pixel_values": tools["pixels"](3)}


def prefix_of(model, **options) -> Prefix:
    return Prefix(model, adapter_for(model).decoder, **options)


def answers(model, recipe, batch, prefix=None):
    """New tokens with their logits, and what was kept; with a prefix, under what the recipe allows to share."""
    seen = Kept()
    with headwise.attach(model, recipe, observers=[seen]) as attached:
        stages = attached.plan.stages
        layers = stages[0].layer if stages else 0
        tower = not any(TOWER_WATCHED & set(stage.reads) for stage in stages)
        with (prefix or prefix_of(model, room=0)).remembered(KEY, layers, tower=tower):
            found = model.generate(
                **batch, max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=0,
                suppress_tokens=[IMAGE, VIDEO], return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
    return found, seen.found


def assert_equal(one, other):
    (found, kept), (wanted, kept_before) = one, other
    assert kept == kept_before
    assert torch.equal(found.sequences, wanted.sequences)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.logits, wanted.logits, strict=True))
    for ours, theirs in zip(found.past_key_values.layers, wanted.past_key_values.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


class Runs:
    """Counts how often the feed-forward parts of the layers, and the vision tower, have run."""

    def __init__(self, model) -> None:
        self.layers = [0] * len(model.model.language_model.layers)
        self.tower = 0
        for number, layer in enumerate(model.model.language_model.layers):
            layer.mlp.register_forward_hook(lambda *_, number=number: self._count(number))
        model.model.vision_tower.encoder.register_forward_hook(lambda *_: self._look())

    def _count(self, number: int) -> None:
        self.layers[number] += 1

    def _look(self) -> None:
        self.tower += 1


def test_every_method_answers_as_it_does_alone_whatever_ran_before_it(model, batch, tmp_path):
    recipes = [recipe_of(method, write_weights(tmp_path), keep=5) for method in METHODS]
    alone = [answers(model, recipe, batch) for recipe in recipes]
    shared = prefix_of(model)
    for _ in range(2):
        for recipe, wanted in zip(recipes, alone, strict=True):
            assert_equal(answers(model, recipe, batch, shared), wanted)


@pytest.mark.parametrize(
    ("make", "prompt", "size"), [(tiny_next, next_prompt, (20, 40)), (tiny_qwen, qwen_prompt, (8, 4))]
)
def test_other_families_share_their_layers(make, prompt, size, attention):
    model = make(attention)
    batch = batch_of([prompt(model, count, size, 5, seed=count) for count in (3, 6)], "left")
    recipe = headwise.Recipe.of("token_pruning=fastv:layer=2", keep=5)
    alone, shared = answers(model, recipe, batch), prefix_of(model)
    for _ in range(2):
        assert_equal(answers(model, recipe, batch, shared), alone)
    assert len(alone[1]) == 2  # rows that something was dropped of


def test_layers_before_the_stage_and_the_tower_run_once(tools, batch):
    model = tools["tiny_llava"]("sdpa")
    runs, shared = Runs(model), prefix_of(model)
    for strategies in (("head_scoring=sum",), ("head_scoring=variance", "head_count=fixed:heads=2")):
        recipe = headwise.Recipe.of("token_pruning=fastv:layer=2", *strategies, keep=5)
        answers(model, recipe, batch, shared)
    prompts, steps = 2, 2  # two recipes, each with two forwards that decode after its prompt
    assert runs.layers == [1 + prompts * steps] * 2 + [prompts * (1 + steps)] * 2
    assert runs.tower == 1


def test_a_layer_that_ran_unasked_runs_again_when_it_is_asked_and_then_no_more(tools, batch):
    model = tools["tiny_llava"]("sdpa")
    runs, shared = Runs(model), prefix_of(model)
    late, early = (headwise.Recipe.of(f"token_pruning=fastv:layer={layer}", keep=5) for layer in (3, 1))
    wanted = answers(model, early, batch)
    before = runs.layers[0]
    answers(model, late, batch, shared)
    for _ in range(2):
        assert_equal(answers(model, early, batch, shared), wanted)
    assert runs.layers[0] - before == 3 * 2 + 1 + 1  # decoding, the late recipe's prompt, the early one's first


def test_somebody_else_who_watches_a_layer_sees_it_run(tools, batch):
    model = tools["tiny_llava"]("sdpa")
    shared, seen = prefix_of(model), []
    recipe = headwise.Recipe.of("token_pruning=fastv:layer=2", keep=5)
    answers(model, recipe, batch, shared)
    handle = model.model.language_model.layers[0].self_attn.o_proj.register_forward_hook(lambda *_: seen.append(1))
    answers(model, recipe, batch, shared)
    handle.remove()
    assert len(seen) == 3


def test_without_room_everything_is_computed_again(tools, batch):
    model = tools["tiny_llava"]("sdpa")
    runs, shared = Runs(model), prefix_of(model, room=1000)
    for _ in range(2):
        answers(model, headwise.Recipe.of("token_pruning=fastv:layer=2", keep=5), batch, shared)
    assert runs.layers == [6] * 4
    assert runs.tower == 2


def test_the_models_own_forwards_come_back_also_after_an_exception(tools):
    model = tools["tiny_llava"]("sdpa")
    first, second = model.model.language_model.layers[:2]
    second.forward = given = second.forward  # as accelerate does where it moves weights about
    with pytest.raises(KeyError), prefix_of(model).remembered(KEY, 2):
        raise KeyError(second.forward is given)
    assert "forward" not in vars(first)
    assert "forward" not in vars(model.model.vision_tower)
    assert second.forward is given


def test_a_forward_without_a_cache_is_left_alone(tools, batch):
    model = tools["tiny_llava"]("sdpa")
    wanted = model(**batch, use_cache=False).logits
    shared = prefix_of(model)
    for _ in range(2):
        with shared.remembered(KEY, 2):
            assert torch.equal(model(**batch, use_cache=False).logits, wanted)
