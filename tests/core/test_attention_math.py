"""The arithmetic that strategies share, against the plainest way to say it."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from headwise.attention_math import entropy, head_cosines, phi, ranking, scaled, shares, taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shares_keep_their_dtype_sum_to_one_and_call_a_blind_head_even(dtype):
    attention = torch.tensor([[[0.1, 0.3], [0.0, 0.0], [1e-30, 3e-30]]], dtype=dtype)
    expected = torch.tensor([[[0.25, 0.75], [0.5, 0.5], [0.25, 0.75]]], dtype=dtype)
    torch.testing.assert_close(shares(attention), expected)


def test_entropy_is_nothing_for_one_token_and_log_v_for_all_alike():
    torch.testing.assert_close(
        entropy(torch.tensor([[1.0, 0.0, 0.0], [1 / 3] * 3, [0.5, 0.25, 0.25]])),
        torch.tensor([0.0, math.log(3), 1.5 * math.log(2)]),
    )


def test_cosines_of_heads_are_those_of_every_pair():
    x = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [[[a @ b / (a.norm() * b.norm()) for b in row] for a in row] for row in x]
    torch.testing.assert_close(head_cosines(x), torch.tensor(pairs))


def test_scaling_brings_the_lowest_to_0_and_the_highest_to_1_among_those_that_count():
    values = torch.tensor([[-1.0, 9.0, 1.0, 3.0]])
    assert scaled(values).tolist() == [[0.0, 1.0, pytest.approx(0.2), pytest.approx(0.4)]]
    assert scaled(values, torch.tensor([[True, False, True, True]])).tolist() == [[0.0, 0.0, 0.5, 1.0]]


def test_scaling_does_not_blow_rounding_up():
    base = torch.tensor([[5.0, 5.0, 5.0]], dtype=torch.float64)
    noise = torch.tensor([[0.0, 1e-13, -1e-13]], dtype=torch.float64)
    assert scaled(base + noise).tolist() == [[0.0, 0.0, 0.0]]
    assert scaled(base + noise * 1e6).tolist() == [[0.5, 1.0, pytest.approx(0.0)]]
    assert scaled(noise, unit=1).tolist() == [[0.0, 0.0, 0.0]]
    assert scaled(base + noise * 1e6, slack=1e-6).tolist() == [[0.0, 0.0, 0.0]]


def test_a_row_in_which_nothing_counts_is_scaled_to_nothing():
    assert scaled(torch.full((1, 3), -torch.inf), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0, 0.0]]


def test_ranking_puts_the_lower_place_first_among_equals():
    scores = torch.randint(0, 4, (3, 200), generator=torch.Generator().manual_seed(1)).float()
    expected = [sorted(range(200), key=lambda at: (-row[at], at)) for row in scores.tolist()]
    assert ranking(scores).tolist() == expected


def test_states_are_taken_row_by_row():
    states = torch.arange(12).reshape(2, 3, 2)
    assert taken(states, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_phi_is_the_normal_distribution_function():
    values = np.linspace(-6, 6, 24).reshape(2, 3, 4)
    expected = [NormalDist().cdf(value) for value in values.flat]
    np.testing.assert_allclose(phi(values).ravel(), expected, rtol=0, atol=1e-12)
    assert phi(values).shape == values.shape
