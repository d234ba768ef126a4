"""Cosines: equal tokens have the very same ones, however they are computed."""

from __future__ import annotations

import pytest
import torch

from headwise.similarity import _first_of_equals, cosines


def tokens(kind, count=60, width=16):
    generator = torch.Generator().manual_seed(4)
    found = torch.randn(2, count, width, generator=generator)
    if kind == "copies":
        return found[:, torch.randint(0, count // 4, (count,), generator=generator)]
    if kind == "whole numbers":
        return torch.randint(-1, 2, (2, count, 3), generator=generator).float()
    if kind == "signed zeros":
        return torch.where(found > 0, 0.0, -0.0)
    return found


KINDS = ("random", "copies", "whole numbers", "signed zeros")


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_of_equals_is_that_of_a_loop_over_pairs(kind):
    states = tokens(kind)
    wanted = [
        [next(j for j in range(len(row)) if torch.equal(row[j], row[i])) for i in range(len(row))] for row in states
    ]
    found = _first_of_equals(states)
    assert (list(range(60)) == wanted[0] == wanted[1]) if found is None else found.tolist() == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_with_some_tokens_are_those_with_all_up_to_the_last_digit(kind):
    states = tokens(kind)
    some = torch.tensor([3, 40, 3, 17])
    found, table = cosines(states, states[:, some]), cosines(states)[:, :, some]
    torch.testing.assert_close(found, table, rtol=0, atol=2e-14)
    assert torch.equal(found[..., 0], found[..., 2])
    for row, equals in zip(found, states, strict=True):
        alike = (equals[:, None] == equals[None]).all(dim=-1)
        first = alike.int().argmax(dim=-1)
        assert torch.equal(row, row[first])
