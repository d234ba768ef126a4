"""Head counts: the laws of the rules, their edge cases, and an exact slow reference."""

from __future__ import annotations

import functools
from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tests.reference import head_count as reference

from headwise import Pipeline, Recipe, StrategyError
from headwise.registry import Registry, resolve

laws = settings(deadline=None, max_examples=40, derandomize=True)
INF = float("inf")
RULES = ("score_gap", "quality_threshold", "cumulative_contribution", "median_of_three")

eighths = st.integers(-40, 80)
rows = st.lists(eighths, min_size=1, max_size=12)
vetoed_rows = st.lists(st.one_of(eighths, eighths, eighths, st.none()), min_size=1, max_size=12)
limits = st.tuples(st.one_of(st.none(), st.integers(1, 5)), st.one_of(st.none(), st.integers(5, 14)))


@functools.cache
def build(text):
    return Registry.installed("head_count").build(text).plugin


def ranged(rule, low=None, high=None):
    options = [f"{name}={limit}" for name, limit in (("low", low), ("high", high)) if limit is not None]
    return build(":".join([rule, ",".join(options)]) if options else rule)


def counts(plugin, *scores, dtype=torch.float32):
    return plugin.head_count(scores=torch.tensor(scores, dtype=dtype)).tolist()


def tensor_row(row):
    return [-INF if value is None else value / 8 for value in row]


def expected(rule, row, low, high):
    exact = [Fraction(value, 8) for value in row if value is not None]
    if not exact:
        return 1
    if rule == "median_of_three":
        return reference.median(exact, low, high)
    wanted = {
        "score_gap": lambda: reference.gap(exact, high or len(exact)),
        "quality_threshold": lambda: reference.quality(exact),
        "cumulative_contribution": lambda: reference.contribution(exact),
    }[rule]()
    return reference.clamped(wanted, low, high, len(exact))


@pytest.mark.parametrize("rule", RULES)
@laws
@given(vetoed_rows, limits)
def test_counts_equal_the_exact_reference(rule, row, limits):
    assert [expected(rule, row, *limits)] == counts(ranged(rule, *limits), tensor_row(row))


@pytest.mark.parametrize("rule", RULES)
@laws
@given(rows, st.randoms(use_true_random=False))
def test_counts_ignore_the_order_of_heads(rule, row, random):
    shuffled = random.sample(row, len(row))
    assert counts(build(rule), tensor_row(row)) == counts(build(rule), tensor_row(shuffled))


@pytest.mark.parametrize("rule", RULES)
@laws
@given(rows, st.sampled_from([0.25, 2.0, 64.0]))
def test_counts_ignore_the_unit_of_scores(rule, row, unit):
    assert counts(build(rule), tensor_row(row)) == counts(build(rule), [unit * score for score in tensor_row(row)])


@pytest.mark.parametrize("rule", ["score_gap", "quality_threshold"])
@laws
@given(rows, st.integers(-200, 200))
def test_gap_and_quality_ignore_the_zero_of_scores(rule, row, shift):
    assert counts(build(rule), tensor_row(row)) == counts(build(rule), [score + shift for score in tensor_row(row)])


def test_holding_exactly_the_share_is_not_holding_more():
    assert counts(build("cumulative_contribution"), [1.0] * 20) == [18]
    assert counts(build("cumulative_contribution:share=0.5"), [2.0, 1.0, 1.0]) == [2]


def test_contribution_depends_on_the_zero_of_scores():
    rule = build("cumulative_contribution")
    assert counts(rule, [4.0, 3.0, 1.0, 0.0], [104.0, 103.0, 101.0, 100.0]) == [2, 4]


def test_contribution_of_negative_scores_is_measured_from_the_lowest():
    rule = build("cumulative_contribution")
    assert counts(rule, [4.0, 3.0, 1.0, 0.0]) == counts(rule, [-6.0, -7.0, -9.0, -10.0])


@pytest.mark.parametrize("rule", RULES)
@laws
@given(st.lists(rows, min_size=3, max_size=3))
def test_rows_are_counted_independently(rule, batch):
    width = max(map(len, batch))
    padded = [tensor_row([*row, *[None] * (width - len(row))]) for row in batch]
    assert [counts(build(rule), tensor_row(row))[0] for row in batch] == counts(build(rule), *padded)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_counts_do_not_depend_on_the_dtype_of_equal_scores(rule, dtype):
    scores = [3.0, 2.5, 2.5, 2.0, 0.25, 0.25, 0.125, 0.0]
    assert counts(build(rule), scores) == counts(build(rule), scores, dtype=dtype)


@pytest.mark.parametrize("rule", RULES)
@laws
@given(rows, limits)
def test_counts_lie_within_limits_and_heads(rule, row, limits):
    low, high = limits
    (count,) = counts(ranged(rule, low, high), tensor_row(row))
    assert min(low or 1, len(row)) <= count <= min(high or len(row), len(row))


@pytest.mark.parametrize("score", [0.1, 1.0, 1e-30])
def test_equal_scores_show_no_gap_no_quality_and_28_contributions_of_32(score):
    equal = [score] * 32
    assert counts(build("score_gap"), equal) == [32]
    assert counts(build("score_gap:high=14"), equal) == [14]
    assert counts(build("quality_threshold"), equal) == [1]
    assert counts(build("quality_threshold:low=6"), equal) == [6]
    assert counts(build("cumulative_contribution"), equal) == [28]


@pytest.mark.parametrize(("limits", "count"), [("", 28), (":low=14,high=26", 26), (":low=6,high=18", 18)])
def test_equal_scores_get_the_high_limit_below_28(limits, count):
    assert [count] == counts(build(f"median_of_three{limits}"), [0.1] * 32)


@pytest.mark.parametrize(("limits", "count"), [("", 1), (":low=14,high=26", 14)])
def test_one_dominant_head_gets_the_low_limit(limits, count):
    dominant = [100.0, *[1.0] * 8]
    assert counts(build("score_gap"), dominant) == [1]
    assert counts(build("cumulative_contribution"), dominant) == [1]
    assert [min(count, 9)] == counts(build(f"median_of_three{limits}"), dominant)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_three_heads_or_fewer_have_no_gap(heads):
    assert [heads] == counts(build("score_gap"), [100.0, 1.0, 0.0][:heads])


@pytest.mark.parametrize("rule", RULES)
def test_a_row_of_vetoed_heads_asks_for_one(rule):
    assert counts(build(f"{rule}:low=3"), [-INF] * 8) == [1]


@pytest.mark.parametrize(("score_sd", "count"), [(0.8, 1), (2.5, 8)])
def test_a_wider_gap_is_wanted_with_more_deviations(score_sd, count):
    assert [count] == counts(build(f"score_gap:sd={score_sd}"), [9.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0])


@pytest.mark.parametrize("heads", [1, 8, 32])
def test_all_keeps_every_head_of_every_row(heads):
    assert heads == build("all").target(heads)
    assert [heads] * 2 == counts(build("all"), [0.0] * heads, [-INF] * heads)


@pytest.mark.parametrize(
    ("text", "heads", "count"),
    [("fixed", 8, 4), ("fixed", 1, 1), ("fixed", 5, 3), ("fixed:share=0.25", 32, 8), ("fixed:share=0.01", 8, 1),
     ("fixed:share=1", 7, 7), ("fixed:heads=8", 8, 8), ("fixed:heads=3", 32, 3)],
)  # fmt: skip
def test_fixed_count_is_known_beforehand(text, heads, count):
    assert count == build(text).target(heads)
    assert [count] * 3 == counts(build(text), *[[0.0] * heads] * 3)


def test_fixed_names_the_heads_of_the_model_when_it_has_too_few():
    pipeline = Pipeline(Recipe.of("fixed:heads=16", "head_scoring=sum"))
    with pytest.raises(StrategyError, match="'fixed:heads=16' wants 16 heads, but this model has 8 heads; give heads="):
        pipeline.choose_heads(torch.rand(1, 8, 5), 0.5, lambda: torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fixed:heads=4,share=0.5", "heads=4 and share=0.5 are both given; give one of them"),
        ("fixed:heads=0", "'heads' must be >= 1: 0"),
        ("fixed:share=0", "'share' must be > 0: 0.0"),
        ("fixed:share=1.5", "'share' must be <= 1: 1.5"),
        ("score_gap:low=5,high=4", "low=5 is above high=4"),
        ("quality_threshold:low=5,high=4", "low=5 is above high=4"),
        ("cumulative_contribution:low=5,high=4", "low=5 is above high=4"),
        ("median_of_three:low=5,high=4", "low=5 is above high=4"),
        ("median_of_three:low=0", "'low' must be >= 1: 0"),
        ("score_gap:sd=nan", "'nan' is not a number"),
        ("cumulative_contribution:share=0", "'share' must be > 0: 0.0"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert str(caught.value).endswith(f"refuses {text!r}: {reason}")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("fixed", "fixed:share=0.5"),
        ("fixed:heads=4", "fixed:heads=4"),
        ("median_of_three:high=26,low=14", "median_of_three:low=14,high=26"),
        ("median_of_three", "median_of_three"),
        ("score_gap", "score_gap:sd=0.8"),
    ],
)
def test_canonical_text_spells_out_what_was_chosen(text, canonical):
    assert canonical == resolve(text).text
