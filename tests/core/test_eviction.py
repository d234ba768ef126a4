"""Plans of KV eviction: who is visible, how budgets divide over layers, how many bytes that is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise import BudgetError, Geometry, ScorePlan, WindowPlan
from headwise.eviction import UNBOUNDED, distinct, divided, everything, grouped, heads_to_kv

laws = settings(deadline=None, max_examples=60, derandomize=True)


def shape(layers=2, heads=4, kv_heads=2, head_dim=8):
    return Geometry(
        name="small", layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim, hidden=heads * head_dim,
        intermediate=64, visual_tokens=0,
    )  # fmt: skip


def windows(sinks, windows, **more):
    return WindowPlan(geometry=shape(len(windows)), sinks=sinks, windows=windows, **more)


def scores(layers=4, **options):
    return ScorePlan(geometry=shape(layers), score=lambda evidence: evidence.keys, **options)


SINKS, WINDOWS = [[4, 4], [0, 2]], [[60, 12], [1, UNBOUNDED]]


@laws
@given(st.integers(1, 300))
def test_a_token_sees_the_first_tokens_and_the_last_ones_itself_included(seen):
    plan = windows(SINKS, WINDOWS)
    expected = [
        [len({token for token in range(seen) if token < sinks or token >= seen - window})
         for sinks, window in zip(*pair, strict=True)]
        for pair in zip(SINKS, WINDOWS, strict=True)
    ]  # fmt: skip
    assert expected == plan.visible(seen).tolist()
    assert plan.context(seen) == pytest.approx(np.mean(expected))


def test_bytes_of_windows_are_keys_and_values_of_all_visible_entries():
    plan = windows(SINKS, WINDOWS)
    # after 100 tokens: 64 + 16 + 1 + 100 entries, keys and values of 8 numbers of 2 bytes
    assert plan.kv_bytes(100) == 181 * 2 * 8 * 2
    assert plan.kv_bytes(100, batch=3, itemsize=4) == 3 * 2 * plan.kv_bytes(100)


@pytest.mark.parametrize(
    ("sizes", "context"),
    [
        ((64, 64, 64), 68.0),
        ((64, 64, 128), 73.5),
        ((256, 128, 128), 178.2),
        ((512, 64, 128), 235.4),
        ((256, 64, 128), 142.9),
        ((128, 128, 128), 132.0),
    ],
)
def test_effective_contexts_are_those_of_seed_004(sizes, context):
    """Pythia-2.8B: 370 positional, 566 mixed and 88 gathering heads, four sinks each."""
    each = np.repeat(sizes, (370, 566, 88)).reshape(32, 32)
    geometry = shape(layers=32, heads=32, kv_heads=32)
    plan = WindowPlan(geometry=geometry, sinks=np.full((32, 32), 4), windows=each)
    assert round(plan.context(), 1) == context


def test_the_full_cache_keeps_everything():
    plan = everything(shape())
    assert plan.keeps_everything
    assert not windows(SINKS, WINDOWS).keeps_everything
    assert plan.context(10**6) == 10**6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[4, 4]], WINDOWS), r"sinks of shape (1, 2) do not fit (2, 2) (layers, KV heads)"),
        (([[4, 4], [0, -1]], WINDOWS), "-1 sinks are impossible; give 0 or more"),
        ((SINKS, [[1, 1], [0, 1]]), "a window of 0 hides the query from itself; give at least 1"),
    ],
)
def test_windows_that_are_impossible_are_refused(arguments, message):
    with pytest.raises(BudgetError) as caught:
        windows(*arguments)
    assert str(caught.value) == message


def test_unknown_positions_are_refused():
    with pytest.raises(BudgetError, match=r"^positions='absolute' is not one of original, relative$"):
        windows(SINKS, WINDOWS, positions="absolute")


def test_heads_of_equal_sinks_and_windows_are_one_group():
    plan = WindowPlan(geometry=shape(1, 4, 4), sinks=[[4, 0, 4, 4]], windows=[[8, 8, 8, 2]])
    assert distinct(plan, 0) == [(0, 8, [1]), (4, 2, [3]), (4, 8, [0, 2])]


def test_a_kv_head_gets_the_largest_value_of_the_heads_that_share_it():
    assert heads_to_kv(np.array([[1, 5, 2, 3], [9, 4, 0, 0]]), shape()).tolist() == [[5, 3], [9, 0]]


def test_values_of_heads_are_averaged_over_those_that_share_a_kv_head():
    values = torch.arange(8.0).reshape(1, 4, 2)
    assert grouped(values, 2).tolist() == [[[1.0, 2.0], [5.0, 6.0]]]
    assert grouped(values[..., 0].half(), 4).dtype == torch.float32


shares = st.none() | st.lists(st.floats(0.05, 4.0), min_size=4, max_size=4).map(np.array)
limits = st.one_of(
    st.builds(lambda budget: {"budget": budget}, st.integers(5, 300)),
    st.builds(lambda ratio: {"ratio": ratio}, st.floats(0.01, 1.0)),
)


@laws
@given(limits, shares, st.integers(0, 2), st.integers(0, 3), st.integers(1, 500))
def test_budgets_of_layers_sum_to_the_budget_times_layers(limits, shares, sinks, recent, seen):
    plan = scores(**limits, shares=shares, sinks=sinks, recent=recent)
    counts = plan.per_layer(seen)
    protected = min(seen, max(1, sinks + recent))
    wanted = limits.get("budget", int(limits.get("ratio", 0) * seen + 1e-9))
    assert counts.sum() == 4 * min(seen, max(wanted, protected))
    assert counts.min() >= protected
    assert counts.max() <= seen


@laws
@given(limits, shares, st.integers(1, 500))
def test_a_layer_with_a_larger_share_never_gets_less(limits, shares, seen):
    counts = scores(**limits, shares=shares).per_layer(seen)
    shares = np.ones(4) if shares is None else shares
    for first in range(4):
        for second in range(4):
            assert counts[first] >= counts[second] - (shares[first] <= shares[second] + 1e-9) * 10**6


@laws
@given(st.integers(0, 200), st.lists(st.floats(0.05, 4.0), min_size=1, max_size=6).map(np.array), st.integers(50, 90))
def test_division_is_in_proportion_where_there_is_room(total, shares, most):
    total = min(total, most * len(shares))
    counts = divided(total, shares, most)
    assert counts.sum() == total
    below = counts < most
    if below.any():
        left = total - counts[~below].sum()
        proportional = left * shares[below] / shares[below].sum()
        assert abs(counts[below] - proportional).max() <= 1 + 1e-6


def test_layers_keep_equally_many_by_default_and_one_entry_at_least():
    assert scores(budget=10).per_layer(50).tolist() == [10] * 4
    assert scores(budget=10).per_layer(6).tolist() == [6] * 4
    assert scores(ratio=0.01).per_layer(6).tolist() == [1] * 4
    # 0.29 * 100 is 28.999999999999996 in floating point
    assert scores(ratio=0.29).per_layer(100).tolist() == [29] * 4


def test_layer_shares_divide_what_protected_tokens_leave():
    plan = scores(layers=2, budget=20, sinks=4, recent=6, shares=np.array([3.0, 1.0]))
    assert plan.per_layer(100).tolist() == [25, 15]
    assert plan.per_layer(18).tolist() == [18, 18]
    # of 21 tokens the first layer can hold no more than all, so the second gets the others
    assert plan.per_layer(21).tolist() == [21, 19]


def test_context_and_bytes_of_scores_follow_from_the_budgets():
    plan = scores(layers=2, budget=20, shares=np.array([3.0, 1.0]))
    assert plan.context(100) == 20
    # 40 entries in each of two KV heads, keys and values of 8 numbers of 2 bytes
    assert plan.kv_bytes(100) == 40 * 2 * 2 * 8 * 2
    assert plan.kv_bytes(100, batch=2, itemsize=4) == 4 * plan.kv_bytes(100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either budget (entries per KV head) or ratio (share kept), one of the two"),
        ({"budget": 2, "ratio": 0.5}, "give either budget (entries per KV head) or ratio (share kept), one of the two"),
        ({"budget": 0}, "budget=0 keeps no entry; give at least 1"),
        ({"ratio": 0.0}, "ratio=0 is not a share of the tokens to keep; give a number above 0, up to 1"),
        (
            {"budget": 8, "sinks": 4, "recent": 5},
            "budget=8 cannot hold 4 sinks and 5 recent tokens, which are never evicted; give at least budget=9",
        ),
        ({"budget": 8, "shares": np.ones(3)}, "layer shares of shape (3,) do not fit 4 layers"),
        ({"budget": 8, "shares": np.array([1, 1, 1, 0.0])}, "a layer share of 0 is impossible; give numbers above 0"),
    ],
)
def test_budgets_that_are_impossible_are_refused(options, message):
    with pytest.raises(BudgetError) as caught:
        scores(**options)
    assert str(caught.value) == message
