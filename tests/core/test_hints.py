"""Numbers in sentences: one thing is no things, and a range of one number is that number."""

from __future__ import annotations

import pytest

import headwise
from headwise.budget import Budget
from headwise.errors import BudgetError, StrategyError
from headwise.hints import number_of, within
from headwise.registry import resolve


def test_one_is_singular_and_a_range_of_one_number_is_it():
    assert [number_of(count, "question") for count in (0, 1, 2)] == ["0 questions", "1 question", "2 questions"]
    assert (within(1, 1), within(0, 7)) == ("1", "0..7")


def test_a_model_without_visual_tokens_is_told_so_and_not_to_give_at_most_0():
    text_alone = headwise.shape("pythia-70m")
    for ask in (Budget(keep=3), Budget(tokens=1.0)):
        with pytest.raises(BudgetError, match="pythia-70m reads text alone, so there are no visual tokens to prune"):
            ask.one_stage(text_alone, 2)


def test_a_model_with_one_head_is_no_range():
    with pytest.raises(StrategyError, match=r"wants 2 heads, but this model has 1 head; give heads=1$"):
        resolve("fixed:heads=2").plugin.target(1)
