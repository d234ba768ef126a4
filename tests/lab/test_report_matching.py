"""Equal budgets: what may be held against what, what lies between two budgets, and seeds that are more questions."""

from __future__ import annotations

import math
import statistics
from random import Random

import pytest
from tests.lab.fake_records import VISUAL, fake_record, trial_from
from tests.lab.test_report_methods import method

from headwise_lab.report.heads.comparison import BASELINE, compare_heads
from headwise_lab.report.heads.verdicts import recommendations
from headwise_lab.report.matching import ReferenceCurve, same_budget
from headwise_lab.report.methods.chapter import sentences
from headwise_lab.report.methods.methods import compare_methods
from headwise_lab.report.pooling import Questions
from headwise_lab.report.trials import Trial
from headwise_lab.stats.differences import mean_and_error


def graded(record: dict, ability: float, n: int = 80) -> Trial:
    """A trial whose questions are worth more the easier they are and the higher the ability; noise of its own."""
    own = Random(record["id"])
    easy = Random(f"difficulty {record['seed']}")
    scores = [100 * min(1.0, max(0.0, ability - easy.random() / 4 + own.gauss(0, 0.02))) for _ in range(n)]
    mean, error = mean_and_error(scores)
    record = {**record, "n": n, "units": n, "metric": {"name": "accuracy", "value": mean, "se": error}}
    return trial_from(record, {f"q{number}": score for number, score in enumerate(scores)})


def at(name: str, processed: float, ability: float, *, given: str = "keep=48", **more) -> Trial:
    record = method(name, 48, **more)
    budget = record["budget"] | {"given": given, "processed": processed}
    return graded({**record, "id": f"{record['id']}-{processed}-{given.replace('=', '-')}", "budget": budget}, ability)


def whole(**more) -> Trial:
    return graded(method("vanilla", None, **more), 0.98)


def compared(*trials: Trial):
    (found,) = compare_methods(trials, [])
    return found


def difference(methods, name: str):
    (result,) = methods.of(name)
    return result.to_reference


def test_methods_that_made_unequal_things_of_one_budget_stand_in_columns_of_their_own():
    methods = compared(whole(), at("fastv", 64, 0.7), at("dart", 64.6, 0.9), at("cdpruner", 48, 0.6))
    assert methods.budgets == ("keep 48 (64.0)", "keep 48 (48.0)")
    assert {result.name for result in methods.at("keep 48 (64.0)")} == {"fastv", "dart"}
    assert [result.best for result in methods.at("keep 48 (48.0)")] == [True]


def test_outside_the_budgets_of_the_reference_nothing_is_compared():
    methods = compared(whole(), at("fastv", 64, 0.7), at("cdpruner", 48, 0.6))
    result = methods.results["cdpruner", "keep 48 (48.0)"]
    assert (result.to_reference, result.verdict, result.to_unpruned.verdict) == (None, "", "worse")
    told = sentences(methods)
    assert any("not compared, because fastv was not run at their budget: cdpruner" in sentence for sentence in told)


def test_between_two_budgets_the_reference_is_interpolated_question_by_question():
    low, high, other = at("fastv", 32, 0.5, given="keep=10"), at("fastv", 64, 0.8), at("cdpruner", 48, 0.9)
    found = difference(compared(whole(), low, high, other), "cdpruner")
    share = math.log2(48 / 32)
    gaps = [other.units[unit] - (1 - share) * low.units[unit] - share * high.units[unit] for unit in other.units]
    assert (pytest.approx(statistics.fmean(gaps)), 80) == (found.value, found.n)
    assert pytest.approx(statistics.stdev(gaps) / math.sqrt(80)) == found.se
    assert found.between == ("keep 10 (32.0)", "keep 48 (64.0)")


def test_the_error_of_an_interpolation_comes_from_leaving_budgets_out_and_is_taken_off():
    trials = [whole(), at("fastv", 36, 0.5, given="keep=10"), at("fastv", 72, 0.8), at("cdpruner", 54, 0.8)]
    found = difference(compared(*trials), "cdpruner")
    values = [trials[1].value, trials[2].value, trials[0].value]  # at 36, 72 and 144: one step of log2 apart
    missed = abs((values[0] + values[2]) / 2 - values[1])
    share = math.log2(1.5)
    assert pytest.approx(missed * share * (1 - share)) == found.allowance
    assert found.low < found.value - found.allowance < found.value + found.allowance < found.high


def test_an_interpolation_of_which_nothing_shows_the_error_is_never_called_a_difference():
    methods = compared(at("fastv", 32, 0.5, given="keep=10"), at("fastv", 64, 0.5), at("cdpruner", 48, 0.9))
    found = difference(methods, "cdpruner")
    assert (found.allowance, found.verdict, found.adjusted) == (None, "", None)
    assert found.value > 30


def test_a_method_that_only_follows_the_curve_of_the_reference_is_no_better_for_its_larger_budget():
    def curve(processed: float) -> float:
        return 0.3 + 0.07 * math.log2(processed)

    given = {36: "keep=10", 72: "keep=48", 100: "keep=70"}
    reference = [at("fastv", processed, curve(processed), given=text) for processed, text in given.items()]
    other = at("dart", 54, curve(54))
    found = difference(compared(whole(), *reference, other), "dart")
    assert found.verdict == "no difference"
    assert other.value - reference[0].value > 3  # which across budgets would be called one


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [((64.0, "keep=48"), (64.9, "tokens=64"), True), ((64.0, "keep=48"), (65.2, "keep=48"), False),
     ((0.0, "keep=48"), (0.0, "keep=48"), True), ((0.0, "keep=48"), (64.0, "keep=48"), False),
     ((0.0, "cache a"), (0.0, "cache b"), False)],
)  # fmt: skip
def test_budgets_are_equal_to_one_token_per_layer_or_by_their_words_alone(ours, theirs, equal):
    left, right = (
        trial_from({**fake_record(), "budget": {"processed": one[0], "given": one[1]}}) for one in (ours, theirs)
    )
    assert same_budget(left, right) is equal


def test_of_two_equal_budgets_the_one_asked_for_in_the_same_words_is_taken():
    near, same = at("fastv", 48.1, 0.2, given="tokens=48"), at("fastv", 48.5, 0.5, given="keep=48")
    assert ReferenceCurve.of([near, same]).at(at("dart", 48.0, 0.5)).units == same.units


def test_head_strategies_are_held_against_all_heads_of_another_budget_only_between_two():
    def record(scoring: str, heads, keep: int, **budget) -> dict:
        found = fake_record(scoring, heads, keep)
        return {**found, "budget": found["budget"] | budget, "id": f"{found['id']}-{keep}"}

    base = [graded(record("sum", "all", keep), ability) for keep, ability in ((8, 0.4), (32, 0.6), (64, 0.8))]
    moved = graded(record("sharp", 4, 32, processed=60.0), 0.9)
    (comparison,) = compare_heads([*base, moved])
    assert [row.budget for row in comparison.rows] == ["keep 64 (77.3)", "keep 32 (60.0)", "keep 32 (50.7)",
                                                       "keep 8 (30.7)"]  # fmt: skip
    cell = comparison.rows[1].cells["sharp"]
    assert BASELINE not in comparison.rows[1].cells
    assert cell.against_baseline.between == ("keep 32 (50.7)", "keep 64 (77.3)")
    assert (cell.verdict, cell.against_baseline.allowance > 0) == ("better", True)
    outside = graded(record("sharp", 4, 4, processed=20.0), 0.9)
    (alone,) = compare_heads([*base, outside])
    assert alone.rows[-1].cells["sharp"].against_baseline is None
    assert "run neither here nor on both sides of it" in recommendations(alone)[-1]


def test_seeds_with_questions_of_their_own_are_more_units_of_one_result():
    trials = [
        graded(method(name, 48, questions=digest, seed=seed), ability, n)
        for seed, digest, n in ((0, "aaaa", 30), (1, "bbbb", 50))
        for name, ability in (("fastv", 0.5), ("dart", 0.8))
    ]
    methods = compared(*trials)
    (result,) = methods.of("dart")
    assert (result.trial.record.n, result.trial.record.seeds, len(result.trials)) == (80, 2, 2)
    ours = {
        (seed, unit): score for seed, trial in ((0, trials[1]), (1, trials[3])) for unit, score in trial.units.items()
    }
    theirs = {(seed, unit): s for seed, trial in ((0, trials[0]), (1, trials[2])) for unit, s in trial.units.items()}
    assert pytest.approx(statistics.fmean(ours.values())) == result.trial.value
    assert pytest.approx(statistics.fmean(ours[key] - theirs[key] for key in ours)) == result.to_reference.value
    assert result.to_reference.n == 80
    assert result.records == (trials[1].id, trials[3].id)


def test_a_seed_that_only_one_side_has_is_left_out_of_the_difference():
    trials = [
        graded(method(name, 48, questions=digest, seed=seed), 0.5, 40)
        for seed, digest in ((0, "aaaa"), (1, "bbbb"))
        for name in ("fastv", "dart")
    ]
    found = difference(compared(*trials[:3]), "dart")
    assert (found.n, found.left_out) == (40, (0, 40))


def test_equal_questions_under_two_seeds_are_asked_twice_and_count_once():
    trials = [
        graded(method(name, 48, questions="aaaa", seed=seed), ability, 40)
        for seed in (0, 1)
        for name, ability in (("fastv", 0.5), ("dart", 0.8))
    ]
    (result,) = compared(*trials).of("dart")
    assert (result.trial.record.n, len(result.trial.units), result.to_reference.n) == (40, 40, 40)
    assert pytest.approx((trials[1].units["q3"] + trials[3].units["q3"]) / 2) == result.trial.units[0, "q3"]


def test_another_limit_is_another_table_each_with_all_its_seeds():
    trials = [
        graded(method("fastv", 48, questions=f"{limit}-{seed}", seed=seed, limit=limit), 0.5, limit)
        for limit in (20, 40)
        for seed in (0, 1)
    ]
    found = compare_methods(trials, [])
    assert [one.results["fastv", "tokens 48"].trial.record.n for one in found] == [40, 80]
    assert [one.title for one in found] == ["Methods, made-up, questions 20-0", "Methods, made-up, questions 40-0"]


def test_costs_of_pooled_trials_are_medians_and_what_is_no_number_stays():
    records = [method("dart", 48, questions=f"{seed}", seed=seed) for seed in range(3)]
    for number, record in enumerate(records):
        record["cost"] = {"prefill_ms": (2.0, 9.0, 3.0)[number], "flops_formula": "gated", "peak_bytes": None}
        record["diversity"] = (0.2, None, 0.4)[number]
    trials = [graded(record, 0.5) for record in records]
    merged = Questions.of(trials).pooled(trials).record.to_json()
    assert merged["cost"] == {"prefill_ms": 3.0, "flops_formula": "gated", "peak_bytes": None}
    assert merged["diversity"] == pytest.approx(0.3)
    assert merged["budget"]["visual"] == VISUAL


def test_without_outcomes_for_one_seed_the_last_trial_stands_alone():
    first, second = (graded(method("dart", 48, questions=f"{seed}", seed=seed), 0.5) for seed in (0, 1))
    first.units = None
    pooled = Questions.of([first, second]).pooled([first, second])
    assert (pooled.value, len(pooled.units)) == (second.value, 80)
