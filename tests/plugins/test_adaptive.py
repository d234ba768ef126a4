"""Adaptive head scoring: which candidates a budget names, which one wins, and what the record says of it."""

from __future__ import annotations

import functools
import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.budget import Budget
from headwise.families import shape
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan, Stage
from headwise.recipe import Recipe
from headwise_plugins.head_scoring.adaptive import _quality

_path = Path(__file__).parents[1] / "reference" / "head_scoring.py"
_spec = importlib.util.spec_from_file_location("reference_head_scoring", _path)
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

law = settings(deadline=None, max_examples=12, derandomize=True, database=None)
averages = st.sampled_from([300.0, 191.63, 160.0, 127.6, 100.0, 63.55])
HIGH, MIDDLE, LOW = (
    {"sparsity", "hierarchical"},
    {"sparsity", "hierarchical", "top_k_sum", "max_attention"},
    {"graph_based", "multi_objective", "attention_range"},
)


@functools.cache
def pipeline(text="adaptive", count="all"):
    return Pipeline(Recipe.of(f"head_scoring={text}", f"head_count={count}"))


def choose(attention, share, count="all", text="adaptive"):
    return pipeline(text, count).choose_heads(attention, share, lambda: torch.arange(len(attention)))


def board(seed, batch=1, heads=32, tokens=48):
    """Softmax attention of heads of different sharpness, cut to the image; no two heads or tokens alike."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = 4 * torch.rand(batch, heads, 1, generator=generator) + 0.5
    logits = sharpness * torch.randn(batch, heads, tokens + 4, generator=generator)
    return logits.softmax(dim=-1)[..., :tokens]


def noted(choice):
    return [(note["strategy"], note["count"]) for note in choice.notes["adaptive"]]


def tried(share, heads=32):
    """Strategies and counts that win on some of many different images, in one batch."""
    found = noted(choose(board(0, 60, heads, 24) ** torch.linspace(0.3, 3, 60).view(60, 1, 1), share))
    return {strategy for strategy, _ in found}, {count for _, count in found}


# --- against the reference -------------------------------------------------------------------------------------------


@law
@given(seed=st.integers(0, 2**31), average=averages, heads=st.integers(1, 20))
def test_choice_and_scores_equal_the_slow_reference(seed, average, heads):
    attention = board(seed, 1, heads, 24)
    choice = choose(attention, average / 576)

    for row, rows in enumerate(attention.double().tolist()):
        scores, strategy, count = reference.adaptive(rows, average)
        assert (strategy, count) == noted(choice)[row]
        torch.testing.assert_close(choice.scores[row], torch.tensor(scores), atol=1e-3, rtol=1e-3)


# --- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("average", "candidates", "range_"),
    [
        (576, HIGH, (14, 26)), (192, HIGH, (14, 26)), (191.63, HIGH, (14, 26)),
        (189, MIDDLE, (8, 26)), (128, MIDDLE, (8, 26)), (127.6, MIDDLE, (8, 26)), (126.9, MIDDLE, (8, 26)),
        (126, LOW, (6, 18)), (64, LOW, (6, 18)), (1, LOW, (6, 18)),
    ],
)  # fmt: skip
def test_the_budget_names_candidates_and_head_range(average, candidates, range_):
    strategies, counts = tried(average / 576)

    assert strategies <= candidates
    assert len(strategies) >= 2
    assert range_[0] <= min(counts)
    assert max(counts) <= range_[1]


@pytest.mark.parametrize("model", ["llava-1.5-7b", "llava-1.5-13b", "llava-next-7b", "demo-llava"])
@pytest.mark.parametrize("layer", [2, 3])
def test_a_budget_keeps_its_tier_when_counts_are_rounded(model, layer):
    """192 and 128 of 576 tokens give other counts, hence other averages, for every model and pruning layer."""
    geometry = shape(model)
    for wanted, candidates in ((192, HIGH), (128, MIDDLE)):
        budget = Budget(tokens=wanted * geometry.visual_tokens / 576)
        if wanted == 128 and model == "demo-llava" and layer == 3:
            continue  # below the smallest feasible average
        stage = Stage(layer, budget.one_stage(geometry, layer), lambda evidence: evidence.attention())
        assert tried(PruningPlan(geometry, (stage,)).share)[0] <= candidates


@pytest.mark.parametrize(
    ("heads", "share", "low", "high"),
    [(8, 0.4, 4, 7), (8, 0.25, 2, 7), (8, 0.1, 2, 5), (40, 0.4, 18, 33), (2, 0.1, 1, 1), (1, 0.4, 1, 1)],
)
def test_the_head_range_scales_with_the_number_of_heads(heads, share, low, high):
    counts = tried(share, heads)[1]

    assert low <= min(counts)
    assert max(counts) <= high


# --- the contract with head_count ------------------------------------------------------------------------------------


@law
@given(seed=st.integers(0, 2**31), average=averages)
def test_all_keeps_exactly_the_heads_that_were_chosen(seed, average):
    choice = choose(board(seed, 3), average / 576)
    kept = choice.scores[choice.kept]

    assert [count for _, count in noted(choice)] == choice.kept.sum(dim=-1).tolist()
    assert torch.equal(choice.kept, choice.scores > -math.inf)
    assert float(kept.min()) >= 0
    assert float(kept.max()) <= 1


@law
@given(seed=st.integers(0, 2**31), average=averages)
def test_the_heads_kept_are_the_best_of_the_strategy_it_names(seed, average):
    attention = board(seed, 2)
    choice = choose(attention, average / 576)

    for row, (strategy, count) in enumerate(noted(choice)):
        alone = choose(attention[row : row + 1], average / 576, f"fixed:heads={count}", strategy)
        if strategy != "hierarchical":  # which heeds a target, and adaptive gives it none
            assert torch.equal(alone.kept[0], choice.kept[row])


def test_a_fixed_count_takes_the_best_of_the_chosen_heads():
    attention = board(3, 4)
    chosen, fixed = choose(attention, 0.2), choose(attention, 0.2, "fixed:heads=4")

    assert fixed.kept.sum(dim=-1).tolist() == [4] * 4
    assert bool((chosen.kept | ~fixed.kept).all())
    assert noted(chosen) == noted(fixed)


def test_the_record_has_plain_data_for_every_row():
    notes = choose(board(4, 5), 0.2).notes["adaptive"]

    assert len(notes) == 5
    for note in notes:
        assert {"strategy": str, "count": int} == {key: type(value) for key, value in note.items()}


# --- laws ------------------------------------------------------------------------------------------------------------


@law
@given(seed=st.integers(0, 2**31), average=averages)
def test_rows_choose_for_themselves(seed, average):
    attention = board(seed, 3)
    together = choose(attention, average / 576)

    for row in range(3):
        alone = choose(attention[row : row + 1], average / 576)
        assert noted(together)[row : row + 1] == noted(alone)
        torch.testing.assert_close(together.scores[row : row + 1], alone.scores, atol=1e-4, rtol=1e-4)


@law
@given(seed=st.integers(0, 2**31), average=averages, data=st.data())
def test_the_choice_follows_heads_and_ignores_the_order_of_tokens(seed, average, data):
    attention = board(seed, 2)
    heads = data.draw(st.permutations(range(32)))
    tokens = data.draw(st.permutations(range(48)))
    choice, moved = choose(attention, average / 576), choose(attention[:, heads][:, :, tokens], average / 576)

    assert noted(choice) == noted(moved)
    torch.testing.assert_close(choice.scores[:, heads], moved.scores, atol=1e-3, rtol=1e-3)


@law
@given(seed=st.integers(0, 2**31), average=averages, factor=st.floats(0.05, 1.0))
def test_the_choice_does_not_depend_on_the_units_of_attention(seed, average, factor):
    """Nor of scores: sparsity and top_k_sum differ in size by orders of magnitude, which must decide nothing."""
    attention = board(seed, 2)
    choice, dimmed = choose(attention, average / 576), choose(attention * factor, average / 576)

    assert noted(choice) == noted(dimmed)
    torch.testing.assert_close(choice.scores, dimmed.scores, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("average", [192, 128, 64])
@pytest.mark.parametrize(
    "attention",
    [
        torch.zeros(1, 8, 9), torch.full((1, 8, 9), 0.1), torch.eye(8).unsqueeze(0), board(5, 1, 1, 9),
        torch.rand(1, 8, 1, generator=torch.Generator().manual_seed(0)), board(6, 1, 1, 9).expand(1, 8, 9),
    ],
    ids=["dead", "even", "peaked", "one head", "one token", "equal heads"],
)  # fmt: skip
def test_degenerate_attention_gets_a_choice_too(attention, average):
    choice = choose(attention, average / 576)

    assert not bool(torch.isnan(choice.scores).any())
    assert noted(choice)[0][1] == int(choice.kept.sum()) >= 1
    assert 0 <= float(choice.scores[choice.kept].min()) <= float(choice.scores[choice.kept].max()) <= 1


@law
@given(seed=st.integers(0, 2**31), heads=st.integers(1, 8), dead=st.integers(0, 3))
def test_quality_of_a_combination_equals_the_slow_reference(seed, heads, dead):
    attention, generator = board(seed, 1, heads, 12), torch.Generator().manual_seed(seed)
    attention[:, :dead] = 0.0
    scores = torch.rand(1, 3, heads, generator=generator)
    kept = torch.rand(1, 3, heads, generator=generator) < 0.5
    kept[..., seed % heads] = True
    wanted = [
        reference.combination_quality(
            attention[0].tolist(), scores[0, at].tolist(), kept[0, at].nonzero()[:, 0].tolist()
        )
        for at in range(3)
    ]

    torch.testing.assert_close(_quality(attention, scores, kept), torch.tensor([wanted]), atol=1e-5, rtol=1e-4)


def test_a_single_head_adds_neither_diversity_nor_deviation():
    row = [0.1, 0.2, 0.3]

    assert reference.combination_quality([row], [0.0], [0]) == pytest.approx(0.4)
