"""PyramidDrop: published counts, one share per stage for a budget, and the choice against a slow reference."""

from __future__ import annotations

import itertools

import attrs
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tests.plugins import in_llm
from tests.plugins.in_llm import LLAVA, Rows
from tests.reference import pdrop as reference

from headwise import BudgetError, Pipeline, Recipe, StrategyError, shape

laws = settings(deadline=None, max_examples=25, derandomize=True)
LARGE, DEMO = shape("llava-1.5-13b"), shape("demo-llava")
OTHERS = [  # layers, ratios of all tokens, counts and average of FinePruner's runs: section 1.3 of the specification
    (LLAVA, "2/8/16/24", "0.58/0.337/0.195/0.113", (334, 194, 112, 65), 191.4),
    (LLAVA, "2/8/16/24", "0.436/0.19/0.082/0.035", (251, 109, 47, 20), 127.1),
]


def planned(options="", geometry=LLAVA, **budget):
    return in_llm.planned(f"token_pruning=pdrop{options}", geometry, **budget)


def stages(plan):
    return [(stage.layer, stage.keep) for stage in plan.stages]


def test_without_a_budget_each_stage_halves_as_published():
    plan = planned()
    assert stages(plan) == [(8, 288), (16, 144), (24, 72)]
    assert (plan.average, plan.reported) == (270.0, None)


@pytest.mark.parametrize("tokens", [192, 128, 64])
def test_a_stage_more_reaches_the_averages_of_the_comparison_tables(tokens):
    plan = planned(":early=2", tokens=tokens)
    assert [stage.layer for stage in plan.stages] == [2, 8, 16, 24]
    assert abs(plan.average - tokens) < 0.5
    kept = [576, *(stage.keep for stage in plan.stages)]
    shares = [after / before for before, after in itertools.pairwise(kept)]
    assert max(shares) - min(shares) < 0.15  # the same share at each, but for whole tokens
    assert [stage.layer for stage in planned(":early=2", geometry=DEMO).stages] == [2, 3, 6, 9]


def test_a_large_model_is_pruned_at_the_same_layers():
    assert stages(planned(geometry=LARGE)) == [(8, 288), (16, 144), (24, 72)]


@pytest.mark.parametrize(("depth", "layers"), [(12, [3, 6, 9]), (24, [6, 12, 18]), (25, [8, 16, 24]), (6, [1, 3, 4])])
def test_models_of_up_to_24_layers_are_pruned_at_quarters(depth, layers):
    assert layers == [layer for layer, _ in stages(planned(geometry=attrs.evolve(LLAVA, layers=depth)))]


@pytest.mark.parametrize(("geometry", "layers", "ratios", "counts", "average"), OTHERS)
def test_settings_of_others_can_be_written_down(geometry, layers, ratios, counts, average):
    plan = planned(f":layers={layers},ratios={ratios}", geometry)
    assert list(zip(map(int, layers.split("/")), counts, strict=True)) == stages(plan)
    assert average == pytest.approx(plan.average, abs=0.05)


@pytest.mark.parametrize(("share", "counts"), [(0.581, (334, 194, 112, 65)), (0.437, (251, 109, 47, 20))])
def test_those_settings_are_a_share_of_what_is_left_each_time(share, counts):
    """The same counts from the shares that those runs were made with, so the ratios above are no invention."""
    assert list(counts) == reference.compounded(576, share, 4)


def test_a_ratio_that_leaves_nothing_is_refused():
    with pytest.raises(BudgetError) as caught:
        planned(":layers=2/8/16/24,ratios=0.196/0.038/0.007/0.001")
    assert str(caught.value) == (
        "token_pruning strategy 'pdrop' would keep 0.001 of 576 visual tokens, which is none; give ratios of at least"
        " 0.001736, or a budget"
    )
    assert planned(":layers=2/8/16/24,ratios=0.196/0.038/0.007/0.001737").kept == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (":ratios=0.5/0.25", "ratios=0.5/0.25 are not one for each of 3 layers"),
        (":ratios=0.5/0.25/0", "not falling shares"),
        (":ratios=0.5/0.6/0.1", "not falling shares"),
        (":ratios=1.5/0.6/0.1", "not falling shares"),
        (":ratios=nan/nan/nan", "'nan' is not a number"),
        (":ratios=a/0.6/0.1", "'a' is not a number"),
        (":layers=16/8", "not ascending layers"),
        (":layers=0/8", "not ascending layers"),
        (":layers=8/x", "'x' is not a whole number"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(StrategyError, match=reason):
        planned(options)


def test_layers_the_model_does_not_have_are_refused():
    with pytest.raises(BudgetError, match="layer 32"):
        planned(":layers=8/32")
    with pytest.raises(BudgetError, match="layers 8, 32 are not ascending"):
        planned(":layers=8/32", keep=20)


def test_ratios_and_a_budget_exclude_each_other():
    with pytest.raises(BudgetError) as caught:
        planned(":ratios=0.5/0.25/0.125", tokens=192)
    assert str(caught.value) == (
        "token_pruning strategy 'pdrop:ratios=0.5/0.25/0.125' has its own counts, so tokens=192 cannot be met beside"
        " it; give one of the two"
    )


def test_the_published_average_as_a_budget_gives_the_published_counts():
    assert stages(planned()) == stages(planned(tokens=270)) == stages(planned(keep=72))


@pytest.mark.parametrize("geometry", [LLAVA, LARGE, DEMO], ids=lambda geometry: geometry.name)
@pytest.mark.parametrize("share", [0.3, 1 / 3, 0.5, 0.77, 1.0])
def test_a_budget_is_the_processed_average(geometry, share):
    plan = planned(geometry=geometry, tokens=share * geometry.visual_tokens)
    layers, counts = zip(*stages(plan), strict=True)
    found = reference.average(geometry.visual_tokens, geometry.layers, layers, counts)
    assert found == pytest.approx(share * geometry.visual_tokens, abs=0.5)


@laws
@given(keep=st.integers(1, 576))
def test_a_budget_keeps_the_same_share_at_each_stage(keep):
    """All but the last count are powers of one share; the last one is what was asked for."""
    first, second, last = (count for _, count in stages(planned(keep=keep)))
    assert keep == last
    assert first >= second >= last
    assert first / 576 == pytest.approx(second / first, abs=2 / first)
    assert second == pytest.approx(first * first / 576, abs=3)


def test_a_budget_below_the_layers_in_front_of_the_stages_names_the_smallest_feasible_one():
    with pytest.raises(BudgetError) as caught:
        planned(tokens=128)
    assert str(caught.value) == (
        "tokens=128 cannot be met when pruning before layers 8, 16, 24 of 32; the nearest feasible budget is"
        " tokens=144.8"
    )
    assert [keep for _, keep in stages(planned(tokens=144.8))] == [1, 1, 1]


@laws
@given(
    scores=st.integers(1, 3).flatmap(
        lambda rows: st.lists(st.lists(st.integers(0, 3), min_size=19, max_size=19), min_size=rows, max_size=rows)
    ),
    keep=st.integers(1, 19),
)
def test_a_stage_keeps_what_the_reference_keeps(scores, keep):
    """Equal scores, all of them alike among the cases, go to the lower position."""
    pipeline = Pipeline(Recipe.of("token_pruning=pdrop"))
    evidence = Rows(torch.tensor(scores).float(), keep)
    for stage in pipeline.plan(LLAVA).stages:
        assert [reference.kept(row, keep) for row in scores] == pipeline.select(stage, evidence).positions.tolist()


def test_every_stage_asks_for_the_attention_of_its_own_layer():
    evidence = Rows(torch.rand(1, 9, generator=torch.Generator().manual_seed(1)), 3)
    for stage in planned().stages:
        stage.select(evidence)
        assert stage.reads == ("own",)
    assert evidence.kinds == ["own"] * 3


def test_two_images_keep_twice_as_many():
    assert [stage.keep_of(1152, LLAVA) for stage in planned().stages] == [576, 288, 144]
