"""How many heads each rule keeps, by hand and against the statistics module (visual pruning 3.3)."""

from __future__ import annotations

import itertools
import statistics
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwise import Pipeline, Recipe


def counted(text, scores):
    """Of a row of scores: through the pipeline, which gets them as the attention of heads to one token."""
    pipeline = Pipeline(Recipe.of("head_scoring=sum", f"head_count={text}"))
    attention = torch.tensor(scores, dtype=torch.float32)[None, :, None]
    return int(pipeline.choose_heads(attention, 0.3, lambda: torch.zeros(1)).kept.sum())


BY_HAND = [
    ("all", [3, 1, 2], 3),
    ("fixed:heads=2", [3, 1, 2, 5], 2),
    ("fixed:share=0.5", [3, 1, 2, 5, 4], 3),  # 2.5, halves up
    ("fixed:share=0.25", [1] * 32, 8),
    # gaps 1 1 1 7 1 1 1: mean 13/7 = 1.86, deviation (n - 1) 2.27, limit 3.67; the first above it is the fourth
    ("score_gap", [20, 19, 18, 17, 10, 9, 8, 7], 4),
    ("score_gap", [20, 18, 16, 14, 12], 5),  # no gap is wider than the others: all
    ("score_gap", [9, 1, 1], 3),  # three heads or fewer
    ("quality_threshold", [1, 2, 3, 4, 5], 3),  # mean 3, deviation 1.58, limit 2.53
    ("quality_threshold", [0, 0, 0, 10], 1),  # mean 2.5, deviation 5, limit 1.0
    ("quality_threshold", [4, 4, 4, 4], 1),  # none above the mean: at least one
    ("cumulative_contribution", [50, 25, 10, 10, 5], 4),  # 50, 75 and 85 of 100 are not above 85
    ("cumulative_contribution", [90, 5, 5], 1),
    ("cumulative_contribution", [1] * 32, 28),  # 27 / 32 = .84375 is not above .85, 28 / 32 is
    ("median_of_three", [20, 19, 18, 17, 10, 9, 8, 7], 4),  # gap 4; quality mean 13.5 - .3 * 5.37 = 11.9: 4; share 6
    ("median_of_three:low=6,high=18", [1] * 32, 18),  # none -> 18, 0, 28
    ("median_of_three:low=6,high=18", [1000] + [1] * 31, 6),  # one dominant head
]


@pytest.mark.parametrize(("text", "scores", "count"), BY_HAND)
def test_counts_by_hand(text, scores, count):
    assert counted(text, scores) == count


rows = st.lists(st.integers(1, 1000), min_size=4, max_size=12, unique=True)


@given(rows)
def test_rules_are_those_of_exact_arithmetic(scores):
    """Squares are compared instead of roots, so that no rounding decides."""
    exact = [Fraction(s) for s in scores]
    ranked = sorted(exact, reverse=True)
    gaps = [a - b for a, b in itertools.pairwise(ranked)]

    def above(value, center, factor, spread):
        """Whether value > center + factor * deviation, factor of either sign."""
        distance, limit = value - center, factor * factor * spread
        if factor > 0:
            return distance > 0 and distance * distance > limit
        return distance > 0 or distance * distance < limit

    wide = [
        i for i, gap in enumerate(gaps) if above(gap, statistics.mean(gaps), Fraction(4, 5), statistics.variance(gaps))
    ]
    by_gap = wide[0] + 1 if wide else len(scores)
    by_quality = sum(above(s, statistics.mean(exact), Fraction(-3, 10), statistics.variance(exact)) for s in exact)
    by_share = 1 + sum(held * 20 <= sum(exact) * 17 for held in itertools.accumulate(ranked))
    expected = (by_gap, max(1, by_quality), by_share)
    found = tuple(counted(rule, scores) for rule in ("score_gap", "quality_threshold", "cumulative_contribution"))
    assert found == expected
    assert counted("median_of_three", scores) == statistics.median(expected)
