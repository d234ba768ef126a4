"""Pairs, corrections, verdicts: what the report may say, against brute force and trials with known effects."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.fake_records import fake_outcomes, fake_record, study_a, trial_from, write_folder

from headwise_lab.report.heads.comparison import BASELINE, CONTROL, compare_heads
from headwise_lab.report.heads.conclusion import conclusion
from headwise_lab.report.heads.verdicts import recommendations, total_wins
from headwise_lab.report.trials import Trial, load_trials, load_units
from headwise_lab.stats.differences import LEVEL, Difference, paired
from headwise_lab.stats.means import mean_and_error
from headwise_lab.stats.rule import holm
from headwise_lab.store.record_schema import record_of

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def laid_out(folder, trials):
    records = write_folder(folder, trials, images=False)
    return compare_heads(load_trials(folder, list(map(record_of, records)))[0])


def trial_of(record: dict, scores: list[float]) -> Trial:
    """A trial with these unit scores, in a scale of 100."""
    mean, error = mean_and_error([100 * score for score in scores])
    record = {
        **record,
        "n": len(scores),
        "metric": {"name": "accuracy", "value": mean, "se": error if len(scores) > 1 else None},
    }
    return trial_from(record, {f"q{index}": 100 * score for index, score in enumerate(scores)})


def cells(comparison):
    """(heads, column) -> cell, for a table of one budget."""
    return {(row.heads, name): cell for row, name, cell in comparison.cells()}


@settings(deadline=None, max_examples=50, derandomize=True)
@given(probabilities)
def test_holm_equals_rejecting_step_by_step(values):
    def rejected(level: float) -> set[int]:
        order = sorted(range(len(values)), key=lambda index: values[index])
        taken = itertools.takewhile(lambda pair: values[pair[1]] * (len(values) - pair[0]) <= level, enumerate(order))
        return {index for _, index in taken}

    adjusted = holm(values)
    for level in {*(min(1.0, value) for value in adjusted), 0.01, LEVEL, 0.5}:
        if level < 1:
            assert rejected(level) == {index for index, value in enumerate(adjusted) if value <= level}


@settings(deadline=None, max_examples=50, derandomize=True)
@given(probabilities, st.randoms(use_true_random=False))
def test_holm_follows_its_input_and_never_lowers_a_probability(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    shuffled = holm([values[index] for index in order])
    plain = holm(values)
    assert shuffled == [plain[index] for index in order]
    assert all(value <= raised <= 1 for value, raised in zip(values, plain, strict=True))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30))
def test_paired_differences_equal_numpy_and_change_sign_when_swapped(pairs):
    ours = {index: float(left) for index, (left, _) in enumerate(pairs)}
    theirs = {index: float(right) for index, (_, right) in enumerate(pairs)}
    gaps = np.array([left - right for left, right in pairs], dtype=float)
    difference, swapped = paired(ours, theirs), paired(theirs, ours)
    assert math.isclose(gaps.mean(), difference.value, abs_tol=1e-12)
    assert math.isclose(gaps.std(ddof=1) / math.sqrt(len(gaps)), difference.se, abs_tol=1e-12)
    assert (-difference.value, difference.n) == (swapped.value, len(pairs))
    assert difference.clear == swapped.clear


def test_only_shared_units_are_paired():
    found = paired({"a": 3.0, "b": 4.0, "c": 9.0}, {"a": 1.0, "b": 2.0, "d": 0.0})
    assert (found.value, found.se, found.n, found.left_out) == (2.0, 0.0, 2, (1, 1))
    assert paired({"a": 1.0}, {"b": 1.0}) is None


def test_a_difference_is_one_from_the_level_and_ten_pairs_on():
    def called(value: float, n: int, p: float, **more) -> bool:
        return Difference(value, 1.0, n, p=p, **more).clear

    assert LEVEL == 0.05
    assert called(2.0, 10, 0.05)
    assert not called(2.0, 10, 0.0501)
    assert not called(50.0, 9, 0.0)
    assert not called(0.0, 100, 0.0)
    assert not called(2.0, 10, 0.01, adjusted=0.06), "once the table is corrected for, that alone counts"
    assert called(2.0, 10, 0.06, adjusted=0.04)
    assert not called(2.0, 10, 0.01, allowance=None), "against a reference of unknown error nothing is called"


def test_rows_are_budgets_and_heads_with_the_baseline_in_each(tmp_path):
    (comparison,) = laid_out(tmp_path, study_a())
    assert comparison.columns == (BASELINE, CONTROL, "dull", "even", "sharp")
    expected = [("keep 48 (64.0)", "4"), ("keep 48 (64.0)", "2"), ("keep 16 (37.3)", "4"), ("keep 16 (37.3)", "2")]
    assert expected == [(row.budget, row.head_label) for row in comparison.rows]
    assert all(set(comparison.columns) == set(row.cells) for row in comparison.rows)
    baselines = {(row.budget, row.cells[BASELINE].trials[0].id) for row in comparison.rows}
    assert len(baselines) == 2


def test_known_effects_are_found_and_noise_is_not(tmp_path):
    (comparison,) = laid_out(tmp_path, study_a(n=120))
    for row in comparison.rows:
        assert tuple(row.cells[name].verdict for name in ("sharp", "dull", "even", BASELINE)) == (
            "better",
            "worse",
            "no difference",
            "",
        )
        assert {"sharp"} == {name for name, cell in row.cells.items() if cell.recommended}
    told = recommendations(comparison)
    assert len(told) == 4  # two budgets, each with what helps and what harms
    for helps, harms in zip(told[::2], told[1::2], strict=True):
        assert "recommended: sharp with" in helps
        assert "dull" not in helps
        assert "worse than all heads: dull with" in harms
        assert "sharp" not in harms
        assert "even" not in harms
    concluded = conclusion([comparison])
    assert concluded.startswith("Choosing heads beats all heads, and as many random heads, at 2 of 2 combinations of")
    assert re.search(r"4 of 12 choices are worse than all heads, 4 show no difference \(a typical comp", concluded)


def test_differences_equal_those_computed_from_the_outcomes(tmp_path):
    base, sharp = fake_record(n=40), fake_record("sharp", 4, n=40)
    (comparison,) = laid_out(tmp_path, [(base, 0.5), (sharp, 0.7)])
    theirs = [line["score"] for line in fake_outcomes(base, 0.5, tmp_path)]
    ours = [line["score"] for line in fake_outcomes(sharp, 0.7, tmp_path)]
    gaps = 100 * (np.array(ours) - np.array(theirs))
    difference = comparison.rows[0].cells["sharp"].against_baseline
    assert (gaps.mean(), 40) == (pytest.approx(difference.value), difference.n)
    assert gaps.std(ddof=1) / math.sqrt(40) == pytest.approx(difference.se)


def test_a_strategy_that_does_not_beat_random_heads_is_not_recommended():
    base = trial_of(fake_record(), [0.0] * 30 + [1.0] * 10)
    control = trial_of(fake_record("random:seed=0", 4), [1.0] * 20 + [0.0] * 10 + [1.0] * 10)
    sharp = trial_of(fake_record("sharp", 4), [1.0] * 20 + [0.0] * 10 + [1.0] * 10)
    (comparison,) = compare_heads([base, control, sharp])
    assert comparison.rows[0].cells["sharp"].verdict == "better"
    assert not comparison.rows[0].cells["sharp"].recommended
    assert "no strategy beats all heads once" in recommendations(comparison)[0]


def test_a_gain_that_does_not_survive_the_correction_is_not_recommended():
    def gain(count: int) -> list[float]:
        return [1.0] * count + [0.0] * (100 - count)

    base, control = trial_of(fake_record(), gain(0)), trial_of(fake_record("random:seed=0", 4), gain(0))
    alone = compare_heads([base, control, trial_of(fake_record("first", 4), gain(8))])[0]
    assert alone.rows[0].cells["first"].recommended
    assert len(alone.family()) == alone.family()[0].family == 3  # control and strategy to all heads, and to each other
    many = [trial_of(fake_record(f"s{index}", 4), gain(0)) for index in range(12)]
    crowded = compare_heads([base, control, trial_of(fake_record("first", 4), gain(8)), *many])[0]
    cell = crowded.rows[0].cells["first"]
    assert pytest.approx(cell.against_baseline.p) == 2 / 2**8
    assert 27 * cell.against_baseline.p == pytest.approx(cell.adjusted)  # the least of 27 p
    assert (cell.against_baseline.seems, cell.verdict, cell.recommended) == ("better", "no difference", False)
    assert "(1 of 13 looked better by themselves, p at most 0.05)" in recommendations(crowded)[0]


def test_without_baseline_or_control_nothing_is_recommended(tmp_path):
    sharp = (fake_record("sharp", 4), 0.9)
    (alone,) = laid_out(tmp_path / "a", [sharp])
    assert "`sum` over all heads was run neither here nor on both sides of it" in recommendations(alone)[0]
    (uncontrolled,) = laid_out(tmp_path / "b", [sharp, (fake_record(), 0.3)])
    assert "no random-heads control was run" in recommendations(uncontrolled)[0]
    assert conclusion([uncontrolled]).endswith("1 of 1 choices is better than all heads only.")
    (bare,) = laid_out(tmp_path / "c", [(fake_record(), 0.3)])
    assert [(row.head_label, tuple(row.cells)) for row in bare.rows] == [("all", (BASELINE,))]
    assert "only the baseline was run" in recommendations(bare)[0]
    assert conclusion([alone, bare]) == ""


def test_equal_printed_figures_tie_and_count_for_each():
    half = [1.0] * 10 + [0.0] * 10
    trials = [trial_of(fake_record(), [*half[:-1], 0.0]), trial_of(fake_record("a", 4), half),
              trial_of(fake_record("b", 4), half[::-1]), trial_of(fake_record("c", 4), [0.0] * 20)]  # fmt: skip
    (comparison,) = compare_heads(trials)
    assert comparison.rows[0].best == (BASELINE, "a", "b")
    assert comparison.wins() == {BASELINE: (1, 0), "a": (1, 0), "b": (1, 0), "c": (0, 0), CONTROL: (0, 0)}
    assert comparison.wins() == total_wins([comparison])
    assert len(comparison.peak()) == 3


def test_query_strategies_go_across_in_study_b_against_fastv():
    flat = [0.0, 1.0] * 20
    trials = [
        trial_of(fake_record(study="b"), flat),
        trial_of(fake_record("random:seed=0", 4, study="b"), flat),
        trial_of(fake_record("variance", 4, query="last_token", study="b"), flat),
        trial_of(fake_record("variance", 4, query="last_n_tokens:n=3", study="b"), flat),
    ]
    (comparison,) = compare_heads(trials, by_query=("b",))
    assert (
        comparison.axis,
        comparison.columns,
    ) == ("query_selection", (BASELINE, CONTROL, "last_n_tokens", "last_token"))
    assert set(comparison.columns) == set(comparison.rows[0].cells)


def test_each_fixed_scorer_of_study_b_has_its_own_table():
    trials = [
        trial_of(fake_record(scoring, 4, query=query, study="b"), [0.0, 1.0] * 20)
        for scoring in ("variance", "sharp")
        for query in ("last_token", "max_attention_token")
    ]
    titles = sorted(comparison.title for comparison in compare_heads(trials, by_query=("b",)))
    assert titles == ["made-up, sharp", "made-up, variance"]


def test_one_name_with_several_options_gets_a_column_each():
    trials = [trial_of(fake_record(f"top_k_sum:k={k}", 4), [0.0, 1.0] * 10) for k in (4, 8)]
    assert compare_heads(trials)[0].columns[2:] == ("top_k_sum:k=4", "top_k_sum:k=8")


def test_seeds_of_one_strategy_are_pooled_over_their_units():
    first = trial_of(fake_record("sharp", 4, seed=0), [1.0] * 10)
    second = trial_of(fake_record("sharp", 4, seed=1), [0.0] * 30)
    cell = compare_heads([first, second])[0].rows[0].cells["sharp"]
    assert (cell.value, cell.n, cell.seeds) == (25.0, 40, 2)
    assert mean_and_error([100.0] * 10 + [0.0] * 30)[1] == pytest.approx(cell.se)


def test_different_models_and_settings_are_never_compared():
    other = {**fake_record("sharp", 4), "weights": "ffff", "id": "other"}
    compact = {**fake_record("sharp", 4), "settings": {"positions": "compact"}, "id": "compact"}
    scores = [0.0, 1.0] * 10
    comparisons = compare_heads([trial_of(fake_record(), scores), trial_of(other, scores), trial_of(compact, scores)])
    assert len(comparisons) == 3
    assert len({comparison.slug for comparison in comparisons}) == 3


def test_a_counting_rule_is_held_against_random_heads_of_nearly_its_number():
    scores = [0.0, 1.0] * 10
    rule = fake_record("sharp", "score_gap:high=6")  # keeps 3.5 heads on average
    near, far = fake_record("random:seed=0", 4), fake_record("random:seed=0", 2)
    trials = [trial_of(record, scores) for record in (fake_record(), rule, near, far)]
    found = cells(compare_heads(trials)[0])
    assert found["score_gap:high=6", "sharp"].against_control is not None
    (uncontrolled,) = compare_heads([*trials[:2], trials[3]])
    assert cells(uncontrolled)["score_gap:high=6", "sharp"].against_control is None


def test_a_gain_without_a_control_of_its_size_is_said_to_have_none():
    low, high = [0.0] * 40, [1.0] * 20 + [0.0] * 20
    rule = trial_of(fake_record("sharp", "score_gap:high=6"), high)
    control = trial_of(fake_record("random:seed=0", 1), low)
    (comparison,) = compare_heads([trial_of(fake_record(), low), rule, control])
    assert "1 looked better, but no random control keeps about as many heads" in recommendations(comparison)[0]


def test_units_follow_the_benchmark_where_it_is_known(tmp_path):
    class Pairs:
        scale = 10.0

        def units(self, questions, scores):
            return {"pair": sum(scores), "kinds": float(len({question.kind for question in questions}))}

    record = write_folder(tmp_path, [(fake_record(n=20), 0.5)], images=False)[0]
    trial = trial_from(record)
    warning = load_units(trial, tmp_path, Pairs())
    right = record["metric"]["value"] / 100 * 20
    assert {"pair": pytest.approx(10 * right), "kinds": 10.0} == trial.units
    assert "its record says" in warning
    assert load_units(trial, tmp_path) is None
    assert len(trial.units) == 20


def test_missing_outcomes_are_said_and_leave_the_figure(tmp_path):
    records = write_folder(tmp_path, [(fake_record(), 0.5), (fake_record("sharp", 4), 0.9)], images=False)
    (tmp_path / "outcomes" / f"{records[1]['id']}.parquet").unlink()
    trials, warnings = load_trials(tmp_path, list(map(record_of, records)))
    cell = compare_heads(trials)[0].rows[0].cells["sharp"]
    assert (records[1]["metric"]["value"], None, "") == (cell.value, cell.against_baseline, cell.verdict)
    assert len(warnings) == 1
    assert f"Record {records[1]['id']} is compared with nothing" in warnings[0]
