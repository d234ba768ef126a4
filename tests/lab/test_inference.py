"""Bootstrap, McNemar and corrections against enumeration, literal loops and figures worked out by hand."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test

from headwise_lab.stats.differences import holm
from headwise_lab.stats.inference import (
    Comparison,
    benjamini_hochberg,
    bootstrap_probability,
    compare,
    interval,
    mcnemar,
    permutation_probability,
    resampled_means,
)
from headwise_lab.stats.paired_tests import LEVEL, MCNEMAR, corrected, family_sentence, paired_test

laws = settings(deadline=None, max_examples=25, derandomize=True)
SKEWED = [0.1, 0.4, 0.5, 0.9, 1.3, 4.0]
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def units(values) -> dict:
    return {f"q{number}": float(value) for number, value in enumerate(values)}


def every_mean(values) -> np.ndarray:
    """The means of all samples with replacement there are."""
    return np.array([math.fsum(sample) / len(values) for sample in itertools.product(values, repeat=len(values))])


def slow_bca(values, confidence: float) -> tuple[float, float]:
    """Efron's BCa interval over every sample there is, with a literal jackknife."""
    normal, mean, drawn = NormalDist(), sum(values) / len(values), every_mean(values)
    bias = normal.inv_cdf(float(np.mean((drawn < mean) + 0.5 * (drawn == mean))))
    without = [sum(values[:i] + values[i + 1 :]) / (len(values) - 1) for i in range(len(values))]
    centre = sum(without) / len(without)
    acceleration = sum((centre - one) ** 3 for one in without) / (
        6 * sum((centre - one) ** 2 for one in without) ** 1.5
    )
    ends = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + normal.inv_cdf(share)
        ends.append(float(np.quantile(drawn, normal.cdf(bias + z / (1 - acceleration * z)))))
    return ends[0], ends[1]


@pytest.mark.parametrize("values", [SKEWED, [-value for value in SKEWED], [-2.0, -1.5, 0.0, 0.2, 0.3, 0.7]])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_interval_is_efrons_over_all_samples(values, confidence):
    drawn = resampled_means(np.array(values), resamples=200_000)
    assert slow_bca(values, confidence) == pytest.approx(interval(np.array(values), drawn, confidence), abs=0.035)


@pytest.mark.parametrize("steps", [2, 3, 11])
def test_the_interval_is_the_one_scipy_gives_for_the_same_resamples(steps):
    values = np.random.default_rng(steps).integers(-1, steps, size=150) / (steps - 1)
    drawn = resampled_means(values, resamples=4000)

    class Drawn:
        bootstrap_distribution = drawn.round(12)

    def mean(sample, axis=-1):
        return np.mean(sample, axis=axis).round(12)  # so that equal means are equal, which scipy compares literally

    theirs = bootstrap((values,), mean, n_resamples=0, bootstrap_result=Drawn, method="BCa").confidence_interval
    assert (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9)) == interval(values, drawn)


@pytest.mark.parametrize("size", [12, 90])
def test_the_permutation_probability_is_that_of_scipys_test(size):
    values = np.random.default_rng(size).choice([-1.0, -0.3, 0.0, 0.3, 0.6, 1.0], size=size) + 0.05
    theirs = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=5000, rng=np.random.default_rng(1)
    ).pvalue
    found = compare(units(values), units(np.zeros(size)))
    assert 0.02 < theirs < 0.9
    assert theirs == pytest.approx(found.probability, abs=0.02)
    assert theirs == pytest.approx(found.p_bootstrap, abs=0.08)


def test_the_permutation_probability_counts_every_choice_of_signs():
    values = [0.2, 0.5, -0.4, 1.1, 0.9, 0.3, 0.3, 0.1, -0.2, 0.7]
    sums = [abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
            for signs in itertools.product((-1, 1), repeat=10)]  # fmt: skip
    share = np.mean([total >= sum(values) - 1e-9 for total in sums])
    assert share == pytest.approx(compare(units(values), units(np.zeros(10))).probability, abs=0.006)


def test_of_binary_scores_mcnemars_test_is_the_permutation_test():
    left, right = np.array([100.0] * 9 + [0.0] * 4 + [100.0] * 9), np.array([0.0] * 9 + [100.0] * 4 + [100.0] * 9)
    found = compare(units(left), units(right))
    assert found.p_mcnemar == found.p_permutation == pytest.approx(permutation_probability(left - right), abs=0.02)


@pytest.mark.parametrize("values", [[0, 0, 0, 1, 1, -1], [3, 3, 3, 3, 3, 3.5]])
def test_means_of_few_values_are_drawn_as_often_as_among_all_samples(values):
    drawn = resampled_means(np.array(values, dtype=float), resamples=100_000)
    exact = every_mean(values)
    for mean in set(exact.round(9)):
        assert np.isclose(exact, mean).mean() == pytest.approx(np.isclose(drawn, mean).mean(), abs=0.006)


def test_drawing_by_counts_and_drawing_by_places_agree(monkeypatch):
    values = np.array(([1.0] * 30 + [0.0] * 60 + [-1.0] * 10) * 2)
    by_counts = resampled_means(values, resamples=20_000)
    monkeypatch.setattr("headwise_lab.stats.inference._EACH", 1000)
    monkeypatch.setattr("headwise_lab.stats.inference._AT_ONCE", 7_000)
    by_places = resampled_means(values, resamples=20_000)
    assert len(by_counts) == len(by_places) == 20_000
    assert by_counts.mean() == pytest.approx(by_places.mean(), abs=0.002)
    assert by_counts.std() == pytest.approx(by_places.std(), rel=0.03)


def test_the_bootstrap_probability_is_the_share_of_moved_samples_as_far_out():
    values = [0.2, 0.5, -0.4, 1.1, 0.9, 0.3]
    mean, exact = sum(values) / 6, every_mean(values)
    share = float(np.mean(np.abs(exact - mean) >= abs(mean)))
    drawn = resampled_means(np.array(values), resamples=100_000)
    assert share == pytest.approx(bootstrap_probability(np.array(values), drawn), abs=0.005)


@pytest.mark.parametrize(("left", "right"), [(0, 0), (1, 0), (0, 6), (3, 9), (9, 3), (5, 5), (40, 60), (120, 171)])
def test_mcnemar_is_the_two_sided_binomial_in_whole_numbers(left, right):
    n = left + right
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(min(left, right) + 1))
    assert float(min(Fraction(1), 2 * tail)) == pytest.approx(mcnemar(left, right), rel=1e-9)


def test_mcnemar_of_many_units_neither_overflows_nor_says_nothing():
    assert mcnemar(0, 5000) == pytest.approx(0.0, abs=1e-300)
    assert mcnemar(5000, 5000) == 1.0
    assert 0.001 < mcnemar(4850, 5150) < 0.004


def test_binary_outcomes_are_counted_and_tested_exactly():
    left = [1] * 9 + [0] * 3 + [1] * 20 + [0] * 8
    right = [0] * 9 + [1] * 3 + [1] * 20 + [0] * 8
    found = compare(units(100 * mark for mark in left), units(100 * mark for mark in right))
    assert (found.n, found.difference, found.discordant) == (40, 15.0, (9, 3))
    assert found.p_mcnemar == found.probability == pytest.approx(0.14599609375)
    assert found.low < 15 < found.high


def test_scores_between_nought_and_one_have_no_mcnemar():
    found = compare(units([0, 0.5, 1] * 5), units([0, 1, 1] * 5))
    assert found.p_mcnemar is found.discordant is None
    assert found.probability == pytest.approx(2 / 2**5, abs=0.006)  # five units changed, all one way
    assert found.p_bootstrap < 0.02  # which takes them for more than they are


def test_only_shared_units_count_and_none_is_none():
    left = {**units([1] * 12), "own": 0.0}
    assert compare(left, units([1] * 12)).n == 12
    assert compare({"a": 1.0}, {"b": 1.0}) is None


def test_below_ten_units_only_the_exact_test_says_anything():
    found = compare(units([1] * 9), units([0] * 9))
    assert (found.p_bootstrap, math.isnan(found.low), math.isnan(found.high)) == (1.0, True, True)
    assert found.p_mcnemar == pytest.approx(2 / 2**9)


def test_equal_trials_have_an_interval_of_nothing():
    same = units([1, 0, 1] * 5)
    assert compare(same, same) == Comparison(15, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, (0, 0), 1.0)


def test_units_that_all_differ_alike_have_an_interval_of_one_value():
    found = compare(units([0.3] * 12), units([0.1] * 12))
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert found.p_bootstrap == pytest.approx(1 / 10_001)


@laws
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=10, max_size=40), st.randoms())
def test_the_order_of_units_is_nothing_and_swapped_sides_are_mirrored(pairs, random):
    left, right = units(a / 3 for a, _ in pairs), units(b / 3 for _, b in pairs)
    found = compare(left, right, resamples=500)
    keys = list(left)
    random.shuffle(keys)
    assert found == compare({key: left[key] for key in keys}, right, resamples=500)
    if abs(found.difference) > 1e-9:
        swapped = compare(right, left, resamples=500)
        assert (-found.high, -found.low) == (pytest.approx(swapped.low), pytest.approx(swapped.high))
        assert found.probability == swapped.probability


def test_where_there_is_no_difference_one_in_twenty_seems_one():
    random = np.random.default_rng(5)
    found = []
    for _ in range(300):
        values = random.choice([-1.0, 0.0, 0.5, 1.0], size=80, p=[0.2, 0.5, 0.2, 0.1])
        found.append(compare(units(values), units(np.zeros(80)), resamples=400))
    assert 0.02 < np.mean([one.p_bootstrap <= 0.05 for one in found]) < 0.09
    assert 0.91 < np.mean([one.low <= 0 <= one.high for one in found]) < 0.98


def test_benjamini_and_hochbergs_own_example_rejects_four_of_fifteen():
    published = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
                 0.7590, 1.0]  # fmt: skip
    assert sum(value <= 0.05 for value in benjamini_hochberg(published)) == 4
    assert sum(value <= 0.05 for value in holm(published)) == 3


@laws
@given(probabilities, st.floats(0.01, 0.5))
def test_adjusted_values_reject_what_the_step_up_rule_rejects(values, level):
    ranked = sorted(values)
    last = max((k for k, value in enumerate(ranked, 1) if value * len(values) / k <= level), default=0)
    assert last == sum(value <= level for value in benjamini_hochberg(values))


@laws
@given(probabilities)
def test_adjusted_values_keep_the_order_and_lie_between_the_raw_ones_and_holms(values):
    adjusted = benjamini_hochberg(values)
    for raw, ours, strict in zip(values, adjusted, holm(values), strict=True):
        assert raw <= ours + 1e-12
        assert ours <= strict + 1e-12
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[index] for index in order] == sorted(adjusted)


def test_an_allowance_takes_from_the_difference_and_lengthens_the_interval():
    left, right = units([0.2, 0.9, 0.4] * 20), units([0.1, 0.7, 0.5] * 20)
    plain, allowed = compare(left, right), compare(left, right, allowance=0.03)
    assert (pytest.approx(plain.low - 0.03), pytest.approx(plain.high + 0.03)) == (allowed.low, allowed.high)
    moved = compare({unit: value - 0.03 for unit, value in left.items()}, right)
    assert (moved.p_bootstrap, moved.p_permutation) == (pytest.approx(allowed.p_bootstrap), allowed.p_permutation)
    assert compare(left, right, allowance=1.0).p_bootstrap == compare(left, right, allowance=1.0).probability == 1.0


def test_full_marks_that_differ_in_the_last_digits_are_the_same_mark():
    left, right = units([100.00000001] * 12 + [0] * 8), units([99.99999999] * 3 + [0] * 17)
    assert compare(left, right).discordant == (9, 0)


def test_what_only_one_side_has_is_left_out_and_counted():
    ours, theirs = units([1.0] * 30), units([0.0] * 20)
    found = paired_test({**ours, "mine": 1.0}, theirs)
    assert (found.n, found.left_out, found.test) == (20, (11, 0), MCNEMAR)
    assert "1 of them are on the questions that both sides were asked" in family_sentence(corrected([found, None]))


def test_a_difference_of_unknown_interpolation_error_is_shown_but_never_called_one():
    ours, theirs = units([1.0] * 30), units([0.0] * 30)
    known, unknown = paired_test(ours, theirs, allowance=0.1), paired_test(ours, theirs, allowance=None)
    first, nothing, second = corrected([known, None, unknown])
    assert (first.verdict, first.family, nothing) == ("better", 1, None)
    assert (second.value, second.verdict, second.adjusted) == (1.0, "", None)


def test_a_lower_loss_is_better():
    found = paired_test(units([1.0] * 30), units([0.0] * 30), lower_is_better=True)
    assert found.verdict == "worse"


def simulated(random, effect: float):
    """Two strategies on 60 questions of graded scores; where there is no effect they differ by noise alone."""
    difficulty = random.uniform(size=60)
    ours, theirs = ((difficulty + random.normal(0, 0.3, 60)).round(1) for _ in range(2))
    return paired_test(units(ours + effect), units(theirs))


def test_without_effects_one_in_twenty_seems_one_and_hardly_a_table_calls_one():
    random = np.random.default_rng(11)
    tables = [corrected([simulated(random, 0.0) for _ in range(6)]) for _ in range(30)]
    assert 0.02 < np.mean([one.p <= LEVEL for table in tables for one in table]) < 0.08
    assert np.mean([any(one.clear for one in table) for table in tables]) < 0.12


def test_of_what_a_table_calls_a_difference_one_in_twenty_is_none():
    random = np.random.default_rng(12)
    shares, found = [], 0
    for _ in range(15):
        table = corrected([simulated(random, 0.25 * (place % 2)) for place in range(10)])
        called = [place for place, one in enumerate(table) if one.clear]
        shares.append(sum(place % 2 == 0 for place in called) / max(1, len(called)))
        found += sum(place % 2 for place in called)
    assert np.mean(shares) < 0.06
    assert found > 0.85 * 75
