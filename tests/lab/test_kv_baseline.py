"""The uniform budget at any context, and what is said against it: by brute force, and with planted effects."""

from __future__ import annotations

import math
import statistics
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.fake_kv import finished, full, heads, kv_record, losses, permuted, streaming, sure, twin, window

from headwise.errors import DataError
from headwise_lab.report.kv.baseline import Curve
from headwise_lab.report.kv.judgement import at_equal_budget, judge
from headwise_lab.report.kv.runs import Run
from headwise_lab.stats.interpolation import interpolation_error, left_out, place

LAWS = settings(deadline=None, max_examples=50, derandomize=True)
CONTEXTS = (64, 96, 128, 192, 256)


def run(record: dict, values: list[float]) -> Run:
    return Run(finished(record, values), {str(at): value for at, value in enumerate(values, 1)})


def planted(record: dict, effect: float = 0.0, noise: float = 0.01) -> Run:
    return run(record, losses(record, effect, noise))


def curve() -> list[Run]:
    return [planted(streaming(context)) for context in CONTEXTS]


def of(judged, name: str):
    return next(one for one in judged.judgements if one.run.name == name)


def test_between_two_runs_losses_are_interpolated_token_by_token_in_log2_context():
    low, high = planted(streaming(64)), planted(streaming(128))
    baseline = Curve.of([high, low]).at(80.0)
    share = math.log(80 / 64) / math.log(2)
    for token in ("1", "57", "400"):
        assert pytest.approx((1 - share) * low.nll[token] + share * high.nll[token]) == baseline.nll[token]
    assert pytest.approx(low.ppl ** (1 - share) * high.ppl**share) == baseline.ppl
    assert (low, high) == baseline.between


def test_at_a_runs_own_context_the_baseline_is_that_run():
    runs = curve()
    baseline = Curve.of(runs).at(128.0)
    assert runs[2].nll == pytest.approx(baseline.nll)
    assert (baseline.error, baseline.between) == (0.0, (runs[2],))


@pytest.mark.parametrize("context", [63.9, 256.1, 1000.0])
def test_nothing_is_extrapolated(context):
    with pytest.raises(DataError, match=rf"context of {context} lies outside the uniform runs \(64.0 to 256.0\)"):
        Curve.of(curve()).at(context)


def test_one_uniform_run_is_no_curve():
    with pytest.raises(DataError, match="needs uniform runs on both sides, and there are 1 in all"):
        Curve.of([planted(streaming(64))]).at(70.0)


def test_uniform_runs_of_another_family_do_not_bend_the_curve():
    other = planted(kv_record("streaming:sinks=0,window=100,positions=original", 100.0))
    assert list(CONTEXTS) == Curve.of([*curve(), other]).contexts


@LAWS
@given(
    st.lists(st.integers(16, 4096), min_size=3, max_size=6, unique=True),
    st.floats(-2, 2), st.floats(-1, 1), st.floats(0.01, 0.99), st.data(),
)  # fmt: skip
def test_the_error_of_a_curve_of_constant_curvature_is_known_exactly(contexts, slope, bend, share, data):
    contexts = sorted(map(float, contexts))
    values = [slope * math.log2(context) + bend * math.log2(context) ** 2 for context in contexts]
    left = data.draw(st.integers(0, len(contexts) - 2))
    wanted = 2 ** ((1 - share) * math.log2(contexts[left]) + share * math.log2(contexts[left + 1]))
    at = place(contexts, wanted)
    true = slope * math.log2(wanted) + bend * math.log2(wanted) ** 2
    interpolated = (1 - at.share) * values[at.left] + at.share * values[at.right]
    assert interpolation_error(contexts, values, at) == pytest.approx(abs(interpolated - true), rel=1e-4, abs=1e-9)


def test_leaving_out_inner_points_by_hand():
    assert pytest.approx([0.5, 0.0]) == left_out([1, 2, 4, 8], [4, 2.5, 2, 1.5])


def test_two_runs_alone_say_nothing_about_their_error():
    assert interpolation_error([64, 128], [1, 0], place([64, 128], 90)) is None


def test_differences_to_the_baseline_are_paired_as_by_brute_force():
    runs = curve()
    ours = planted(heads(64, 64, 128, 80.0), effect=0.02)
    found = of(judge([*runs, ours]), ours.name).delta
    share = math.log2(80 / 64) / math.log2(96 / 64)
    gaps = [ours.nll[token] - (1 - share) * runs[0].nll[token] - share * runs[1].nll[token] for token in ours.nll]
    assert pytest.approx(statistics.fmean(gaps)) == found.value
    assert pytest.approx(statistics.stdev(gaps) / math.sqrt(400)) == found.se
    unpaired = statistics.stdev(ours.nll.values()) / math.sqrt(400)
    assert unpaired > 20 * found.se


def test_a_planted_gain_is_found_and_a_planted_null_is_not():
    good, null = heads(64, 64, 128, 80.0), heads(64, 64, 256, 110.0)
    judged = judge([*curve(), planted(good, -0.03), planted(null)])
    assert (of(judged, good["name"]).verdict, of(judged, null["name"]).verdict) == ("better", "indistinguishable")


def test_a_gain_within_the_interpolation_error_is_no_gain():
    """A curve bent so much that half an octave of interpolation misses it by more than the run gains."""
    bent = {64: 2.0, 128: 1.5, 256: 1.4}
    runs = [run(streaming(context), [value + Random(f"{context}-{at}").gauss(0, 0.01) for at in range(400)])
            for context, value in bent.items()]  # fmt: skip
    ours = run(heads(64, 64, 128, 90.5), [1.73 + Random(f"ours-{at}").gauss(0, 0.01) for at in range(400)])
    one = of(judge([*runs, ours]), ours.name)
    assert one.delta.errors < -10
    assert one.allowance > 0.02
    assert one.verdict == "indistinguishable"


def test_a_uniform_twin_beside_a_run_raises_its_yardstick_and_is_not_judged():
    same = planted(twin(64), effect=-0.02)
    ours = planted(heads(64, 64, 128, 80.0), effect=-0.02)
    judged = judge([*curve(), same, ours])
    assert of(judge([*curve(), ours]), ours.name).verdict == "better"
    assert of(judged, ours.name).verdict == "indistinguishable"
    assert of(judged, same.name).adjusted is None
    assert same not in [one.run for one in judged.of("head-aware")]


def test_many_comparisons_make_each_of_them_harder():
    """Two standard errors are enough for one run and not for one of many (Holm)."""
    runs = curve()
    share = math.log2(80 / 64) / math.log2(96 / 64)
    base = {token: (1 - share) * loss + share * runs[1].nll[token] for token, loss in runs[0].nll.items()}

    def gaining(number: int, errors: float) -> Run:
        own = Random(number)
        gaps = [own.gauss(0, 1) for _ in base]
        mean, sd = statistics.fmean(gaps), statistics.stdev(gaps)
        gaps = [0.01 * ((gap - mean) / sd - errors / 20) for gap in gaps]  # 400 tokens: SE = sd / 20
        return run(
            heads(64, 64, 100 + number, 80.0), [loss + gap for loss, gap in zip(base.values(), gaps, strict=True)]
        )

    ours = gaining(0, 2.5)
    alone = of(judge([*runs, ours]), ours.name)
    among = of(judge([*runs, ours, *(gaining(number, 0) for number in range(1, 9))]), ours.name)
    assert pytest.approx(-2.5, abs=0.01) == alone.delta.errors
    assert pytest.approx(min(1, 9 * alone.adjusted)) == among.adjusted
    assert among.verdict == "indistinguishable"


def test_permuted_controls_are_averaged_and_their_spread_counts():
    ours = planted(heads(64, 64, 128, 80.0), -0.02)
    controls = [planted(permuted(ours.record, seed), effect) for seed, effect in enumerate((0.01, -0.01, 0.03))]
    chance = of(judge([*curve(), ours, *controls]), ours.name).chance
    gaps = [ours.nll[token] - statistics.fmean(other.nll[token] for other in controls) for token in ours.nll]
    means = [statistics.fmean(other.nll.values()) for other in controls]
    expected = math.hypot(statistics.stdev(gaps) / 20, statistics.stdev(means) / math.sqrt(3))
    assert (pytest.approx(statistics.fmean(gaps)), pytest.approx(expected)) == (
        chance.difference.value,
        chance.difference.se,
    )
    assert len(chance.controls) == 3


def test_controls_of_another_run_or_another_budget_do_not_count():
    ours, other = planted(heads(64, 64, 128, 80.0)), planted(heads(64, 64, 256, 80.0))
    wrong_budget = planted({**permuted(ours.record, 0), "context": 90.0})
    judged = judge([*curve(), ours, other, planted(permuted(other.record, 0)), wrong_budget])
    assert of(judged, ours.name).chance is None
    assert of(judged, other.name).chance is not None


def test_runs_that_are_one_run_under_two_names_count_once():
    ours = planted(heads(64, 64, 128, 80.0))
    again = run(heads(512, 64, 128, 80.0, "I"), list(ours.nll.values()))
    uniform_again = run(heads(64, 512, 128, 96.0, "I"), list(curve()[1].nll.values()))
    judged = judge([*curve(), ours, again, uniform_again])
    assert len(judged.of("head-aware")) == 1
    assert {again.name, uniform_again.name} == {one.run.name for one in judged.repeats} or ours.name in {
        one.run.name for one in judged.repeats
    }
    assert of(judged, uniform_again.name).same_as.name == "B_streaming_96"


def test_runs_of_different_budgets_are_not_compared_with_each_other():
    with pytest.raises(DataError, match="runs of different mean budgets are compared with the uniform budget"):
        at_equal_budget(planted(twin(64)), planted(streaming(64)))


def test_runs_of_the_same_budget_are_paired():
    ours, theirs = planted(window(64), effect=1.0), planted(streaming(64))
    assert at_equal_budget(ours, theirs).value == pytest.approx(1.0, abs=0.01)


def test_parts_follow_from_strategy_texts_alone():
    runs = {
        "full": full(), "window": window(64), "uniform": streaming(64), "uniform twin": twin(64),
        "head-aware": sure(0.6, 64, 67.0), "permuted": permuted(heads(64, 64, 128, 80.0), 1),
        "score-based": kv_record("snapkv:budget=64", 64.0),
    }  # fmt: skip
    assert list(runs) == [Run(record).part for record in runs.values()]
