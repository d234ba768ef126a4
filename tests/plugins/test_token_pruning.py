"""Token pruning: budgets become the published counts, and each rule keeps what it says."""

from __future__ import annotations

import functools
import itertools

import attrs
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings

from headwise import BudgetError, Geometry, Pipeline, Recipe, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True)
TINY = Geometry(
    name="tiny", layers=4, heads=4, kv_heads=4, head_dim=4, hidden=16, intermediate=32, visual_tokens=12
)  # fmt: skip

PUBLISHED = [  # shape, layer, average -> tokens kept, average processed: table 0.1 of the specification
    ("llava-1.5-7b", 2, 192, 166, 191.63), ("llava-1.5-7b", 2, 128, 98, 127.88), ("llava-1.5-7b", 2, 64, 30, 64.13),
    ("llava-1.5-7b", 3, 192, 152, 191.75), ("llava-1.5-7b", 3, 128, 82, 128.31), ("llava-1.5-7b", 3, 64, 11, 63.97),
    ("llava-1.5-13b", 2, 192, 172, 192.2), ("llava-1.5-13b", 2, 128, 104, 127.6), ("llava-1.5-13b", 2, 64, 37, 63.95),
    ("llava-1.5-13b", 3, 192, 161, 192.13), ("llava-1.5-13b", 3, 128, 92, 128.3), ("llava-1.5-13b", 3, 64, 22, 63.55),
]  # fmt: skip


@attrs.frozen
class Rows:
    """Evidence of rows whose images have the given seeds."""

    images: list[int]
    visual: int
    keep: int
    scores: torch.Tensor | None = None

    @property
    def batch(self):
        return len(self.images)

    def seeds(self):
        return torch.tensor(self.images, dtype=torch.int64)

    def attention(self):
        return self.scores


def planned(text, geometry=TINY, **budget):
    return Pipeline(Recipe.of(f"token_pruning={text}", **budget)).plan(geometry)


@functools.cache
def pipeline(text, keep=None):
    return Pipeline(Recipe.of(f"token_pruning={text}", keep=keep))


def kept(text, evidence):
    """What a plan's only stage keeps, after the pipeline checked and sorted it."""
    geometry = attrs.evolve(TINY, visual_tokens=evidence.visual)
    stage = pipeline(text, evidence.keep).plan(geometry).stages[0]
    return pipeline(text).select(stage, evidence).positions.tolist()


@pytest.mark.parametrize(("name", "layer", "tokens", "keep", "average"), PUBLISHED)
@pytest.mark.parametrize("strategy", ["fastv", "random", "uniform"])
def test_average_budgets_keep_the_published_counts(strategy, name, layer, tokens, keep, average):
    plan = planned(f"{strategy}:layer={layer}", shape(name), tokens=tokens)
    assert [(layer, keep)] == [(stage.layer, stage.keep) for stage in plan.stages]
    assert (576,) * layer + (keep,) * (shape(name).layers - layer) == plan.processed
    assert average == pytest.approx(plan.average, abs=0.0051)


@pytest.mark.parametrize(("name", "layer", "smallest"), [("llava-1.5-7b", 2, "36.94"), ("llava-1.5-7b", 3, "54.91")])
def test_budgets_below_the_full_layers_name_the_smallest_feasible_one(name, layer, smallest):
    with pytest.raises(
        BudgetError, match=rf"before layer {layer} of 32.*smallest feasible budget is tokens={smallest}"
    ):
        planned(f"fastv:layer={layer}", shape(name), tokens=20)
    assert planned(f"fastv:layer={layer}", shape(name), tokens=float(smallest)).kept == 1


@pytest.mark.parametrize(
    ("text", "budget"),
    [("fastv", {"tokens": 13}), ("fastv", {"keep": 13}), ("random", {"tokens": 13}), ("uniform", {"keep": 13}),
     ("fastv", {}), ("fastv:layer=4", {"keep": 3}), ("none", {"keep": 3}), ("none", {"tokens": 3.5})],
)  # fmt: skip
def test_budgets_that_cannot_be_met_are_refused(text, budget):
    with pytest.raises(BudgetError):
        planned(text, **budget)


@pytest.mark.parametrize("text", ["fastv", "random", "uniform", "random:layer=0", "uniform:layer=0"])
def test_a_kept_count_is_kept_whatever_the_layer(text):
    assert planned(text, keep=3).kept == 3


@pytest.mark.parametrize("budget", [{}, {"tokens": 12}, {"keep": 12}])
def test_none_processes_everything_in_every_layer(budget):
    plan = planned("none", **budget)
    assert (plan.stages, plan.processed) == ((), (12,) * 4)


def test_none_refuses_a_budget_with_what_to_do():
    with pytest.raises(BudgetError) as caught:
        planned("none", keep=3)
    assert str(caught.value) == (
        "token_pruning strategy 'none' keeps every visual token, so keep=3 cannot be met with the 12 of tiny; name a"
        " token_pruning strategy such as fastv"
    )


def test_only_fastv_asks_for_attention():
    reads = {text: planned(text, keep=3).stages[0].reads_attention for text in ("fastv", "random", "uniform")}
    assert reads == {"fastv": True, "random": False, "uniform": False}


@laws
@given(st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=1, max_size=3), st.integers(1, 9))
def test_fastv_keeps_the_most_attended_tokens_and_of_equals_the_first(scores, keep):
    evidence = Rows([0] * len(scores), 9, keep, torch.tensor(scores, dtype=torch.float32))
    best = [sorted(sorted(range(9), key=lambda token: (-row[token], token))[:keep]) for row in scores]
    assert best == kept("fastv", evidence)


@pytest.mark.parametrize("text", ["fastv", "random", "uniform"])
def test_keeping_all_keeps_every_token_in_order(text):
    assert [list(range(9))] * 2 == kept(text, Rows([3, 4], 9, 9, torch.rand(2, 9)))


images = st.integers(-(2**63), 2**63 - 1)


@laws
@given(st.lists(images, min_size=2, max_size=4), st.integers(1, 30), st.integers(0, 9))
def test_random_keeps_the_same_of_an_image_in_any_batch(batch, keep, seed):
    alone = [kept(f"random:seed={seed}", Rows([image], 30, keep))[0] for image in batch]
    assert alone == kept(f"random:seed={seed}", Rows(batch, 30, keep))


@laws
@given(images, st.integers(1, 29))
def test_random_keeps_more_of_the_same_with_a_larger_budget(image, keep):
    (fewer,), (more,) = (kept("random", Rows([image], 30, count)) for count in (keep, keep + 1))
    assert set(fewer) < set(more)


@laws
@given(images, images)
def test_random_keeps_other_tokens_of_another_image(image, other):
    assume(image != other)
    assert kept("random", Rows([image], 500, 250)) != kept("random", Rows([other], 500, 250))


def test_random_keeps_other_tokens_with_another_seed():
    choices = {tuple(kept(f"random:seed={seed}", Rows([7], 500, 250))[0]) for seed in range(5)}
    assert len(choices) == 5


def test_random_favours_no_token():
    found = torch.tensor(kept("random", Rows(list(range(3000)), 12, 4)))
    share = found.flatten().bincount(minlength=12) / 3000
    deviation = (1 / 3 * 2 / 3 / 3000) ** 0.5
    assert ((share - 1 / 3).abs() < 4 * deviation).all()


@laws
@given(st.integers(1, 300), st.data())
def test_uniform_keeps_the_middle_of_equal_parts(visual, data):
    keep = data.draw(st.integers(1, visual))
    (found, same) = kept("uniform", Rows([1, 2], visual, keep))
    assert found == same
    assert keep == len(set(found))
    for part, token in enumerate(found):
        assert token == int((part + 0.5) * visual / keep + 1e-9)
        assert part * visual <= (token + 1) * keep  # a token that reaches into its part ...
        assert token * keep <= (part + 1) * visual  # ... and does not begin behind it


@laws
@given(st.integers(2, 300), st.data())
def test_uniform_leaves_gaps_that_differ_by_one_at_most(visual, data):
    keep = data.draw(st.integers(2, visual))
    (found,) = kept("uniform", Rows([1], visual, keep))
    gaps = {later - earlier for earlier, later in itertools.pairwise(found)}
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fastv:layer=0", "'layer' must be >= 1: 0"),
        ("token_pruning=random:layer=-1", "'layer' must be >= 0: -1"),
        ("token_pruning=random:seed=-1", "'seed' must be >= 0: -1"),
        ("uniform:layer=-1", "'layer' must be >= 0: -1"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert str(caught.value).endswith(f"refuses {text.removeprefix('token_pruning=')!r}: {reason}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vanilla", "query_selection=last_token head_scoring=sum head_count=all token_pruning=none"),
        ("fastv", "token_pruning=fastv:layer=2 query_selection=last_token head_scoring=sum head_count=all"),
        (
            "finepruner",
            "token_pruning=fastv:layer=2 query_selection=last_token head_scoring=sparsity:form=l2"
            " head_count=fixed:share=0.5",
        ),
    ],
)
def test_recipes_build_the_published_methods(name, text):
    built = Recipe.of(name=name).text.split()
    assert sorted(text.split()) == sorted(built)


def test_finepruner_takes_another_strategy_in_place_of_its_own():
    recipe = Recipe.of("fixed:heads=3", "entropy", name="finepruner", keep=3)
    assert recipe.strategies["head_count"].text == "fixed:heads=3"
    assert recipe.strategies["head_scoring"].text == "entropy"
    assert Pipeline(recipe).plan(TINY).kept == 3
