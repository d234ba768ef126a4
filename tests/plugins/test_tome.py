"""ToMe: equality with a slow reference, and what merging promises."""

from __future__ import annotations

import random

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.pre_llm import TINY, outcome, pipeline
from tests.reference import tome as reference
from torch.utils.flop_counter import FlopCounterMode

from headwise import BudgetError, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True, database=None)


@attrs.frozen
class Vision:
    """Evidence of the vision tower alone: the metric, one list per row, as keys or as features."""

    metric: list
    keep: int
    told: str = "keys"
    dtype: torch.dtype = torch.float32

    @property
    def batch(self):
        return len(self.metric)

    @property
    def visual(self):
        return len(self.metric[0])

    def vision_keys(self):
        assert self.told == "keys"
        return torch.tensor(self.metric, dtype=self.dtype)

    def features(self):
        assert self.told == "features"
        return torch.tensor(self.metric, dtype=self.dtype)


def merged(text, evidence):
    """Per row: kept place -> the tokens that merged there."""
    found = outcome(text, evidence)
    return [
        {place: {token for token, weight in enumerate(row) if weight} for place, row in zip(places, rows, strict=True)}
        for places, rows in zip(found.positions.tolist(), found.weights.tolist(), strict=True)
    ]


@st.composite
def pictures(draw):
    """Rows with many equal, opposite and zero tokens."""
    visual, rows = draw(st.integers(1, 24)), draw(st.integers(1, 3))
    rng = random.Random(draw(st.integers(0, 2**20)))
    metric = [[[rng.choice((-1, 0, 1, 2)) for _ in range(3)] for _ in range(visual)] for _ in range(rows)]
    return Vision(metric, draw(st.integers(1, visual)))


@laws
@given(pictures(), st.one_of(st.none(), st.integers(1, 9)))
def test_merging_equals_the_slow_reference_whatever_ties(picture, step):
    expected = [reference.groups(metric, picture.keep, step) for metric in picture.metric]
    assert expected == merged("tome" if step is None else f"tome:step={step}", picture)


@pytest.mark.parametrize("keep", [1, 2, 7, 14, 15, 29, 30, 58, 59])
@pytest.mark.parametrize("options", ["", ":step=5", ":metric=features"])
def test_merging_equals_the_slow_reference_for_ordinary_tokens(options, keep):
    rng = random.Random(keep)
    metric = [[[rng.gauss(0, 1) for _ in range(8)] for _ in range(59)] for _ in range(2)]
    expected = [reference.groups(row, keep, 5 if "step" in options else None) for row in metric]
    read = "features" if "features" in options else "keys"
    assert expected == merged(f"tome{options}", Vision(metric, keep, read))


@laws
@given(pictures())
def test_every_token_goes_into_one_merged_token_with_the_weight_of_all_others_there(picture):
    weights = outcome("tome", picture).weights
    assert ((weights > 0).sum(dim=1) == 1).all()
    torch.testing.assert_close(torch.ones(weights.shape[:2]), weights.sum(dim=-1))
    size = (weights > 0).sum(dim=-1, keepdim=True)
    torch.testing.assert_close(torch.where(weights > 0, 1 / size, 0.0), weights)


def test_the_most_similar_pairs_merge_at_the_place_of_the_second_set():
    """By hand: of 0 2 4 the nearest to 1 3 5 by angle are 2 for 3 (5 degrees) and 4 for 3 (10); 0 to 1 are 30."""
    angles = torch.tensor([0, 30, 60, 65, 75, 110]).deg2rad()
    metric = [torch.stack((angles.cos(), angles.sin()), dim=-1).tolist()]
    assert [{0: {0}, 1: {1}, 3: {2, 3}, 4: {4}, 5: {5}}] == merged("tome", Vision(metric, 5))
    assert [{0: {0}, 1: {1}, 3: {2, 3, 4}, 5: {5}}] == merged("tome", Vision(metric, 4))


def test_all_members_have_the_same_share_however_they_came_together():
    """By hand: 0 and 2 merge into 1, the first of equals; then the three of them into 3."""
    metric = [[[1, 0], [1, 0], [1, 0], [0, 1]]]
    assert [{1: {0, 1, 2}, 3: {3}}] == merged("tome", Vision(metric, 2))
    found = outcome("tome", Vision(metric, 1))
    assert found.positions.tolist() == [[3]]
    assert found.weights.tolist() == [[[0.25] * 4]]


@pytest.mark.parametrize("keep", [1, 4, 8, 9])
@pytest.mark.parametrize("token", [[0.0, 0.0], [3.0, 4.0]])
def test_tokens_without_any_difference_are_averaged_with_weights_that_sum_to_one(token, keep):
    found = outcome("tome", Vision([[token] * 9], keep))
    torch.testing.assert_close(torch.ones(1, keep), found.weights.sum(dim=-1))
    assert keep == len(set(found.positions[0].tolist()))


def test_keeping_everything_merges_nothing():
    found = outcome("tome", Vision([[[1.0, 0.0]] * 9], 9))
    torch.testing.assert_close(torch.eye(9).unsqueeze(0), found.weights)


def test_half_precision_merges_what_the_same_numbers_merge_in_float32():
    rng = random.Random(5)
    metric = torch.tensor([[[rng.gauss(0, 1) for _ in range(8)] for _ in range(40)]]).bfloat16()
    rounded = (metric.float().tolist(), 12)
    assert merged("tome", Vision(*rounded)) == merged("tome", Vision(*rounded, dtype=torch.bfloat16))


@pytest.mark.parametrize(("keep", "most"), [(12, 0), (9, 3), (6, 6), (4, 4), (1, 1)])
def test_the_plan_says_how_many_tokens_can_be_merged_ones(keep, most):
    (stage,) = pipeline("tome", keep=keep).plan(TINY).stages
    assert most == stage.merged


@pytest.mark.parametrize("tokens", [192, 128, 64])
def test_average_budgets_are_kept_in_every_layer_because_nothing_is_full(tokens):
    plan = pipeline("tome", tokens=tokens).plan(shape("llava-1.5-7b"))
    assert (tokens,) * 32 == plan.processed
    assert [(stage.layer, stage.reads, stage.per_image) for stage in plan.stages] == [(0, ("vision",), True)]


def test_more_tokens_than_there_are_is_refused():
    with pytest.raises(BudgetError, match="more than the 12 visual tokens of tiny"):
        pipeline("tome", keep=13).plan(TINY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tome:metric=values", "'metric' must be in ('keys', 'features') (got 'values')"),
        ("tome:step=0", "'step' must be >= 1: 0"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert str(caught.value).endswith(f"refuses {text!r}: {reason}")


def test_a_round_computes_the_cosines_that_it_compares_and_no_others():
    width, visual = 8, 40
    tokens = torch.randn(2, visual, width, generator=torch.Generator().manual_seed(0)).tolist()
    with FlopCounterMode(display=False) as counter:
        outcome("tome", Vision(tokens, keep=7))
    rounds = (40, 20, 10)  # half of the tokens leave in a round
    assert counter.get_total_flops() == sum(2 * 2 * (count // 2) ** 2 * width for count in rounds)
