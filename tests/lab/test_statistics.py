"""The rule of the project against enumeration, literal loops, simulations and figures worked out by hand."""

from __future__ import annotations

import itertools
import math
import statistics
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, permutation_test

from headwise_lab.stats.blocks import block_length, in_blocks
from headwise_lab.stats.differences import LEVEL, MCNEMAR, PERMUTATION, Difference, paired, paired_losses
from headwise_lab.stats.power import POWER, smallest_seen
from headwise_lab.stats.resampling import interval, mcnemar, permutation_probability, resampled_means
from headwise_lab.stats.rule import block_unit, corrected, holm, rule, stated

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
    assert 0.02 < theirs < 0.9
    exact = size == 12  # both try every choice of signs
    assert theirs == pytest.approx(permutation_probability(values), abs=1e-9 if exact else 0.02)


@pytest.mark.parametrize("size", [1, 5, 10, 13])
def test_of_few_values_the_permutation_probability_counts_every_choice_of_signs(size):
    values = [0.2, 0.5, -0.4, 1.1, 0.9, 0.3, 0.3, 0.1, -0.2, 0.7, 0.6, -0.1, 0.8][:size]
    sums = [abs(sum(sign * value for sign, value in zip(signs, values, strict=True)))
            for signs in itertools.product((-1, 1), repeat=size)]  # fmt: skip
    share = np.mean([total >= abs(sum(values)) - 1e-9 for total in sums])
    assert share == pytest.approx(permutation_probability(np.array([*values, 0.0, 0.0])), abs=1e-12)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([1.0] * 5, 2),  # all plus or all minus, of 32
        ([1.0] * 4 + [-1.0], 12),  # at most one of five has another sign than the rest
        ([3.0, 2.0, 1.0], 2),
        ([3.0, 2.0, -1.0], 4),  # 6 and 4, each with both signs
        ([0.5, -0.5, 0.0], 8),
    ],
)
def test_exact_permutations_by_hand(values, count):
    signs = 2 ** len([value for value in values if value])
    assert permutation_probability(np.array(values)) == min(1.0, count / signs)


def test_drawn_permutations_go_on_until_some_are_as_far_out():
    clear = permutation_probability(np.random.default_rng(0).normal(5, 1, 60))
    assert clear == pytest.approx(1 / 100_001)
    assert 400 * clear <= LEVEL, "so that Holm's correction of a table of hundreds can call it"


def test_of_binary_scores_mcnemars_test_is_the_permutation_test():
    left, right = np.array([100.0] * 9 + [0.0] * 4 + [100.0] * 9), np.array([0.0] * 9 + [100.0] * 4 + [100.0] * 9)
    found = paired(units(left), units(right))
    assert found.test == MCNEMAR
    assert found.p == pytest.approx(permutation_probability(left - right), abs=1e-9)


@pytest.mark.parametrize("values", [[0, 0, 0, 1, 1, -1], [3, 3, 3, 3, 3, 3.5]])
def test_means_of_few_values_are_drawn_as_often_as_among_all_samples(values):
    drawn = resampled_means(np.array(values, dtype=float), resamples=100_000)
    exact = every_mean(values)
    for mean in set(exact.round(9)):
        assert np.isclose(exact, mean).mean() == pytest.approx(np.isclose(drawn, mean).mean(), abs=0.006)


def test_drawing_by_counts_and_drawing_by_places_agree(monkeypatch):
    values = np.array(([1.0] * 30 + [0.0] * 60 + [-1.0] * 10) * 2)
    by_counts = resampled_means(values, resamples=20_000)
    monkeypatch.setattr("headwise_lab.stats.resampling._EACH", 1000)
    monkeypatch.setattr("headwise_lab.stats.resampling._AT_ONCE", 7_000)
    by_places = resampled_means(values, resamples=20_000)
    assert len(by_counts) == len(by_places) == 20_000
    assert by_counts.mean() == pytest.approx(by_places.mean(), abs=0.002)
    assert by_counts.std() == pytest.approx(by_places.std(), rel=0.03)


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
    found = paired(units(100 * mark for mark in left), units(100 * mark for mark in right))
    assert (found.n, found.value, found.discordant, found.test) == (40, 15.0, (9, 3), MCNEMAR)
    assert found.p == pytest.approx(598 / 4096)  # 2 * (1 + 12 + 66 + 220) of 2 ** 12
    assert found.low < 15 < found.high


def test_scores_between_nought_and_one_are_permuted():
    found = paired(units([0, 0.5, 1] * 5), units([0, 1, 1] * 5))
    assert (found.discordant, found.test) == (None, PERMUTATION)
    assert found.p == 2 / 2**5  # five units changed, all one way


def test_only_shared_units_count_and_none_is_none():
    left = {**units([1] * 12), "own": 0.0}
    assert paired(left, units([1] * 12)).n == 12
    assert paired({"a": 1.0}, {"b": 1.0}) is None


def test_below_ten_units_there_is_no_interval_and_no_verdict():
    found = paired(units([1] * 9), units([0] * 9))
    assert (found.p, math.isnan(found.low), math.isnan(found.high)) == (2 / 2**9, True, True)
    assert (found.clear, found.verdict) == (False, "no difference")
    assert paired(units([1] * 10), units([0] * 10)).verdict == "better"


def test_equal_trials_have_an_interval_of_nothing():
    same = units([1, 0, 1] * 5)
    found = paired(same, same)
    assert (found.value, found.se, found.low, found.high, found.p, found.discordant) == (0, 0, 0, 0, 1.0, (0, 0))
    graded = units([0.3, 0.7] * 8)
    assert (paired(graded, graded).p, paired(graded, graded).verdict) == (1.0, "no difference")


def test_units_that_all_differ_alike_have_an_interval_of_one_value():
    found = paired(units([0.3] * 12), units([0.1] * 12))
    assert (found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert found.p == 2 / 2**12


graded = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=10, max_size=40)


@laws
@given(graded, st.randoms())
def test_the_order_of_units_is_nothing_and_swapped_sides_are_mirrored(pairs, random):
    left, right = units(a / 3 for a, _ in pairs), units(b / 3 for _, b in pairs)
    found = paired(left, right)
    keys = list(left)
    random.shuffle(keys)
    assert found == paired({key: left[key] for key in keys}, right)
    swapped = paired(right, left)
    assert (found.p, found.se) == (swapped.p, swapped.se)
    if abs(found.value) > 1e-9:
        assert (-found.high, -found.low) == (pytest.approx(swapped.low), pytest.approx(swapped.high))


@laws
@given(graded, st.sampled_from([0.01, 0.5, 3.0, 100.0]))
def test_the_scale_of_scores_changes_no_probability_and_stretches_the_interval(pairs, scale):
    left, right = units(a / 3 for a, _ in pairs), units(b / 3 for _, b in pairs)
    found = paired(left, right)
    scaled = paired(*({unit: scale * score for unit, score in side.items()} for side in (left, right)))
    assert scaled.p == found.p
    assert (scaled.low, scaled.high) == (pytest.approx(scale * found.low), pytest.approx(scale * found.high))


@pytest.fixture
def quick(monkeypatch):
    """A tenth of the resamples, for simulations of many tests."""
    monkeypatch.setattr("headwise_lab.stats.resampling.RESAMPLES", 1000)
    monkeypatch.setattr("headwise_lab.stats.resampling._MOST", 1)


def graded_gaps(random, n: int = 80) -> np.ndarray:
    """Differences of graded scores whose true mean is 0."""
    return random.normal(0, 0.4, n).round(1)


def binary_changes(random, n: int = 200) -> tuple[int, int]:
    """How many of n questions only ours and only theirs got right, of two sides that are equally good."""
    changed = random.binomial(n, 0.4)
    ours = random.binomial(changed, 0.5)
    return ours, changed - ours


def skewed_gaps(random, n: int = 80) -> np.ndarray:
    """Differences with a long tail, whose true mean is 0."""
    return random.gamma(2.0, 1.0, n) - 2.0


def covers(values: np.ndarray) -> bool:
    low, high = interval(values, resampled_means(values, 1000))
    return low <= 0 <= high


def rates(count: int) -> tuple[float, float, float]:
    """How often a true null is called a difference (graded, binary), and how often the interval holds the truth."""
    random = np.random.default_rng(5)
    graded = np.mean([permutation_probability(graded_gaps(random)) <= LEVEL for _ in range(count)])
    binary = np.mean([mcnemar(*binary_changes(random)) <= LEVEL for _ in range(count)])
    covered = np.mean([covers(make(random)) for make in (graded_gaps, skewed_gaps) for _ in range(count)])
    return float(graded), float(binary), float(covered)


def test_a_true_null_is_called_a_difference_one_time_in_twenty(quick):
    graded, binary, covered = rates(400)
    assert 0.03 <= graded <= 0.07
    assert 0.01 < binary <= 0.07  # an exact test of whole numbers stays below its level
    assert 0.93 <= covered <= 0.97


@pytest.mark.slow
def test_a_true_null_is_called_a_difference_one_time_in_twenty_to_one_point(quick):
    graded, binary, covered = rates(4000)
    assert 0.04 < graded < 0.06
    assert 0.02 < binary < 0.055
    assert 0.935 < covered < 0.96


def dependent(random, n: int = 1000) -> np.ndarray:
    """Differences of losses that rise and fall together over some tokens; their true mean is 0, the first are 0."""
    shocks = random.normal(size=n + 5)
    gaps = sum(0.6**lag * shocks[5 - lag : n + 5 - lag] for lag in range(6))
    return np.where(np.arange(n) > 64, gaps, 0.0)


def false_alarms(count: int) -> tuple[float, float]:
    """How often differences without a mean are called one, by tokens (1.96 standard errors) and by blocks of them."""
    random = np.random.default_rng(7)
    made = [dependent(random) for _ in range(count)]
    by_tokens = [abs(gaps.mean()) > 1.96 * gaps.std(ddof=1) / math.sqrt(len(gaps)) for gaps in made]
    blocks = [in_blocks({str(token): gap for token, gap in enumerate(gaps)}) for gaps in made]
    by_blocks = [permutation_probability(np.array([*units.values()])) <= LEVEL for units in blocks]
    return float(np.mean(by_tokens)), float(np.mean(by_blocks))


def test_blocks_keep_the_level_where_tokens_depend_on_each_other_and_tokens_do_not(quick):
    by_tokens, by_blocks = false_alarms(1000)
    assert by_tokens > 0.2
    assert 0.03 < by_blocks < 0.07


@pytest.mark.slow
def test_blocks_keep_the_level_to_one_point(quick):
    assert 0.04 < false_alarms(6000)[1] < 0.065


def test_blocks_are_consecutive_equal_and_keep_the_mean():
    losses = {str(token): float(token**2) for token in range(1, 1000)}
    blocks = in_blocks(losses)
    assert (block_length(999), len(blocks), list(blocks)[:2]) == (20, 50, ["1-19", "20-39"])
    assert statistics.fmean(blocks.values()) == pytest.approx(statistics.fmean(losses.values()))
    assert in_blocks(dict(reversed(losses.items()))) == blocks
    assert in_blocks({}) == {}
    assert set(in_blocks(dict.fromkeys(losses, 0.25)).values()) == {0.25}, "also where blocks differ by a token"
    assert in_blocks({"1": 3.0}) == {"1-1": 3.0}
    assert [block_length(tokens) for tokens in (1, 89, 300, 511, 10_000, 1_000_000)] == [2, 9, 13, 16, 43, 200]


@laws
@given(st.integers(1, 3000))
def test_blocks_hold_every_token_once_and_differ_by_at_most_one(count):
    ends = [list(map(int, name.split("-"))) for name in in_blocks({str(token): 1.0 for token in range(count)})]
    assert [start for start, _ in ends] == [0, *(end + 1 for _, end in ends[:-1])]
    assert ends[-1][1] == count - 1
    sizes = {end - start + 1 for start, end in ends}
    assert max(sizes) - min(sizes) <= 1


def test_losses_are_paired_on_the_tokens_that_both_have():
    ours = {str(token): 1.0 + token % 2 for token in range(300)}
    theirs = {str(token): 1.5 for token in range(100, 500)}
    found = paired_losses(ours, theirs)
    assert (found.n, found.lower_is_better) == (len(in_blocks({str(token): 0.0 for token in range(100, 300)})), True)
    assert found.value == pytest.approx(0.0)
    assert paired_losses({"1": 1.0}, {"2": 1.0}) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [pytest.approx(0.03), 0.06, 0.06, 0.02]
    assert holm([0.9, 0.02]) == [0.9, 0.04]
    assert holm([0.5, 0.6, 0.7]) == [1.0, 1.0, 1.0]
    published = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
                 0.7590, 1.0]  # fmt: skip
    assert sum(value <= 0.05 for value in holm(published)) == 3  # Benjamini and Hochberg 1995, section 3.2


def test_an_allowance_takes_from_the_difference_and_lengthens_the_interval():
    left, right = units([0.2, 0.9, 0.4] * 20), units([0.1, 0.7, 0.5] * 20)
    plain, allowed = paired(left, right), paired(left, right, allowance=0.03)
    assert (pytest.approx(plain.low - 0.03), pytest.approx(plain.high + 0.03)) == (allowed.low, allowed.high)
    moved = paired({unit: value - 0.03 for unit, value in left.items()}, right)
    assert moved.p == allowed.p
    assert paired(left, right, allowance=1.0).p == 1.0


def test_full_marks_that_differ_in_the_last_digits_are_the_same_mark():
    left, right = units([100.00000001] * 12 + [0] * 8), units([99.99999999] * 3 + [0] * 17)
    assert paired(left, right).discordant == (9, 0)


def test_what_only_one_side_has_is_left_out_and_counted():
    ours, theirs = units([1.0] * 30), units([0.0] * 20)
    found = paired({**ours, "mine": 1.0}, theirs)
    assert (found.n, found.left_out, found.test) == (20, (11, 0), MCNEMAR)
    assert "1 of them are on the questions that both sides share" in stated(corrected([found, None]))


def test_the_rule_is_one_sentence_with_unit_test_interval_correction_and_level():
    for told in (rule(), rule("prompt", 7), rule(block_unit(999))):
        assert told.count(". ") == 0
        for part in ("paired by", "95% (BCa bootstrap)", "McNemar's exact test", "permutation test", "Holm's", "0.05"):
            assert part in told
    assert "over the 7 comparisons of this table" in rule("prompt", 7)
    assert "block of 20 consecutive tokens" in rule(block_unit(999))
    found = corrected([paired(units([1.0] * 30), units([0.0] * 30))] * 3)
    assert stated(found, "prompt") == rule("prompt", 3)
    assert stated([None]) == ""


def test_a_difference_of_unknown_interpolation_error_is_shown_but_never_called_one():
    ours, theirs = units([1.0] * 30), units([0.0] * 30)
    known, unknown = paired(ours, theirs, allowance=0.1), paired(ours, theirs, allowance=None)
    first, nothing, second = corrected([known, None, unknown])
    assert (first.verdict, first.family, nothing) == ("better", 1, None)
    assert (second.value, second.verdict, second.adjusted) == (1.0, "", None)


def test_a_lower_loss_is_better():
    found = paired(units([1.0] * 30), units([0.0] * 30), lower_is_better=True)
    assert found.verdict == "worse"


def simulated(random, effect: float):
    """Two strategies on 60 questions of graded scores; where there is no effect they differ by noise alone."""
    difficulty = random.uniform(size=60)
    ours, theirs = ((difficulty + random.normal(0, 0.3, 60)).round(1) for _ in range(2))
    return paired(units(ours + effect), units(theirs))


def test_without_effects_one_in_twenty_seems_one_and_hardly_a_table_calls_one(quick):
    random = np.random.default_rng(11)
    tables = [corrected([simulated(random, 0.0) for _ in range(6)]) for _ in range(25)]
    assert 0.02 < np.mean([one.p <= LEVEL for table in tables for one in table]) < 0.08
    assert np.mean([any(one.clear for one in table) for table in tables]) < 0.12


def test_effects_among_many_comparisons_are_found(quick):
    random = np.random.default_rng(12)
    tables = [corrected([simulated(random, 0.25 * (place % 2)) for place in range(10)]) for _ in range(8)]
    called = [place % 2 for table in tables for place, one in enumerate(table) if one.clear]
    assert called.count(1) > 0.8 * 40
    assert called.count(0) <= 2


@pytest.mark.parametrize("family", [1, 20])
def test_the_smallest_difference_that_could_be_seen_is_seen_as_often_as_it_says(family):
    random = np.random.default_rng(0)
    n, spread, counted, times = 200, 1.0, 0, 400
    size = smallest_seen([Difference(0.0, spread / math.sqrt(n), n, family=family)])
    for _ in range(times):
        gaps = random.normal(size, spread, n)
        error = gaps.std(ddof=1) / math.sqrt(n)
        counted += 2 * NormalDist().cdf(-abs(gaps.mean() / error)) * family <= LEVEL
    assert abs(counted / times - POWER) < 0.07


def test_what_could_be_seen_is_that_of_the_comparison_in_the_middle():
    wide, narrow, middle = Difference(1.0, 2.0, 50), Difference(1.0, 0.5, 50), Difference(1.0, 1.0, 50)
    off = Difference(1.0, 2.0, 50, allowance=3.0)
    unknown, unchanged = Difference(1.0, 9.0, 50, allowance=None), Difference(0.0, 0.0, 50)
    assert smallest_seen([wide]) == pytest.approx(2.0 * 2.802, rel=1e-3)
    assert smallest_seen([off]) == pytest.approx(smallest_seen([wide]) + 3.0)
    assert smallest_seen([narrow, wide, middle, unknown, unchanged]) == smallest_seen([middle])
    assert smallest_seen([unknown, unchanged]) is None
