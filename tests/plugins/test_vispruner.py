"""VisPruner: equality with a slow reference, and what its parts promise."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plugins.pre_llm import TINY, Features, outcome, pipeline
from tests.reference import vispruner as reference

from headwise import BudgetError, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True, database=None)


def kept(text, evidence):
    return outcome(text, evidence).positions.tolist()


@st.composite
def pictures(draw):
    """Rows with many equal, opposite and zero tokens, and many equal saliencies."""
    visual, rows = draw(st.integers(1, 24)), draw(st.integers(1, 3))
    rng = random.Random(draw(st.integers(0, 2**20)))
    tokens = [[[rng.choice((-1, 0, 1, 2)) for _ in range(3)] for _ in range(visual)] for _ in range(rows)]
    salient = [[rng.randrange(4) for _ in range(visual)] for _ in range(rows)]
    return Features(salient, tokens, draw(st.integers(1, visual)))


@laws
@given(pictures(), st.sampled_from((0, 0.25, 0.5, 0.75, 1)), st.integers(1, 9))
def test_choice_equals_the_slow_reference_whatever_ties(picture, share, step):
    expected = [
        reference.vispruner(salient, tokens, picture.keep, share, step)
        for salient, tokens in zip(picture.salient, picture.tokens, strict=True)
    ]
    assert expected == kept(f"vispruner:important={share},step={step}", picture)


@pytest.mark.parametrize("keep", [1, 2, 13, 26, 27, 58, 59])
def test_choice_equals_the_slow_reference_for_ordinary_features(keep):
    rng = random.Random(keep)
    tokens = [[[rng.gauss(0, 1) for _ in range(8)] for _ in range(59)] for _ in range(2)]
    salient = [[rng.random() for _ in range(59)] for _ in range(2)]
    expected = [reference.vispruner(*row, keep) for row in zip(salient, tokens, strict=True)]
    assert expected == kept("vispruner", Features(salient, tokens, keep))


@pytest.mark.parametrize(("visual", "keep"), [(10, 5), (11, 5), (10, 4), (11, 4), (9, 2), (8, 7)])
def test_odd_numbers_of_tokens_to_choose_from_keep_as_many_as_asked(visual, keep):
    rng = random.Random(visual)
    tokens = [[[rng.gauss(0, 1) for _ in range(4)] for _ in range(visual)]]
    (found,) = kept("vispruner", Features([[rng.random() for _ in range(visual)]], tokens, keep))
    assert keep == len(set(found))


@laws
@given(pictures(), st.sampled_from((0.25, 0.5, 0.75, 1)))
def test_important_tokens_are_the_most_salient(picture, share):
    for salient, found in zip(picture.salient, kept(f"vispruner:important={share}", picture), strict=True):
        best = sorted(range(len(salient)), key=lambda token: (-salient[token], token))[: int(picture.keep * share)]
        assert set(best) <= set(found)


def test_of_two_alike_among_diverse_tokens_the_one_whose_turn_it_is_leaves():
    tokens = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert kept("vispruner:important=0", Features([[5, 1, 4, 2, 3]], [tokens], 4)) == [[0, 2, 3, 4]]
    assert kept("vispruner:important=0", Features([[5, 2, 4, 1, 3]], [tokens], 4)) == [[0, 1, 2, 4]]


@pytest.mark.parametrize(("step", "expected"), [(1, [3, 4, 5]), (3, [1, 3, 5])])
def test_a_round_takes_as_many_as_the_step_says(step, expected):
    """By hand: six equally salient tokens at these angles, so that the cosine falls with the distance.

    One at a time: of 0 2 4 it is 0, which is 2 degrees from 1. Left are 2 4 1 3 5, and of 2 1 5 it is 2, 10 degrees
    from 3. Left are 1 5 4 3, and of 1 4 it is 1, 18 degrees from 3. Three at once: 0 2 4.
    """
    angles = torch.tensor([0, 2, 10, 20, 50, 85]).deg2rad()
    tokens = torch.stack((angles.cos(), angles.sin()), dim=-1).tolist()
    assert [expected] == kept(f"vispruner:important=0,step={step}", Features([[1] * 6], [tokens], 3))


@pytest.mark.parametrize("token", [[0.0, 0.0], [3.0, 4.0]])
def test_of_tokens_without_any_difference_the_first_are_important(token):
    (found,) = kept("vispruner", Features([[1.0] * 9], [[token] * 9], 4))
    assert found[:2] == [0, 1]
    assert len(set(found)) == 4


def test_half_precision_chooses_what_the_same_numbers_choose_in_float32():
    rng = random.Random(5)
    tokens = torch.tensor([[[rng.gauss(0, 1) for _ in range(8)] for _ in range(40)]]).bfloat16()
    salient = torch.tensor([[rng.random() for _ in range(40)]]).bfloat16()
    rounded = (salient.float().tolist(), tokens.float().tolist(), 12)
    assert kept("vispruner", Features(*rounded)) == kept("vispruner", Features(*rounded, dtype=torch.bfloat16))


@pytest.mark.parametrize("tokens", [192, 128, 64])
def test_average_budgets_are_kept_in_every_layer_because_nothing_is_full(tokens):
    plan = pipeline("vispruner", tokens=tokens).plan(shape("llava-1.5-7b"))
    assert (tokens,) * 32 == plan.processed
    assert [(stage.layer, stage.reads, stage.per_image) for stage in plan.stages] == [(0, ("vision",), True)]


def test_more_tokens_than_there_are_is_refused():
    with pytest.raises(BudgetError, match="more than the 12 visual tokens of tiny"):
        pipeline("vispruner", keep=13).plan(TINY)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("vispruner:important=1.5", "'important' must be <= 1: 1.5"),
        ("vispruner:important=-0.5", "'important' must be >= 0: -0.5"),
        ("vispruner:step=0", "'step' must be >= 1: 0"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert str(caught.value).endswith(f"refuses {text!r}: {reason}")
