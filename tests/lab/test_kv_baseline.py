"""The uniform budget at any context, and what is said against it: by brute force, and with planted effects."""

from __future__ import annotations

import itertools
import math
import statistics
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.fake_kv import finished, full, heads, kv_record, losses, permuted, streaming, sure, twin, window

from headwise.errors import DataError
from headwise_lab.report.kv.baseline import UniformCurve
from headwise_lab.report.kv.judgement import judge_runs
from headwise_lab.report.kv.runs import KvRun
from headwise_lab.stats.interpolation import interpolation_error, left_out, place
from headwise_lab.stats.rule import holm
from headwise_lab.store.record_schema import record_of

LAWS = settings(deadline=None, max_examples=50, derandomize=True)
CONTEXTS = (64, 96, 128, 192, 256)


def run(record: dict, values: list[float]) -> KvRun:
    return KvRun(record_of(finished(record, values)), {str(at): value for at, value in enumerate(values, 1)})


def planted(record: dict, effect: float = 0.0, noise: float = 0.01) -> KvRun:
    return run(record, losses(record, effect, noise))


def curve() -> list[KvRun]:
    return [planted(streaming(context)) for context in CONTEXTS]


def block_error(gaps: list[float]) -> float:
    """Standard error of a mean over 400 tokens from 27 blocks of 14 or 15 of them."""
    ends = [400 * number // 27 for number in range(28)]
    mean = statistics.fmean(gaps)
    blocks = [sum(gap - mean for gap in gaps[start:end]) * 27 / 400 for start, end in itertools.pairwise(ends)]
    return statistics.stdev(blocks) / math.sqrt(27)


def of(judged, name: str):
    return next(one for one in judged.judgements if one.run.name == name)


def test_between_two_runs_losses_are_interpolated_token_by_token_in_log2_context():
    low, high = planted(streaming(64)), planted(streaming(128))
    baseline = UniformCurve.of([high, low]).at(80.0)
    share = math.log(80 / 64) / math.log(2)
    for token in ("1", "57", "400"):
        assert pytest.approx((1 - share) * low.nll[token] + share * high.nll[token]) == baseline.nll[token]
    assert pytest.approx(low.ppl ** (1 - share) * high.ppl**share) == baseline.ppl
    assert (low, high) == baseline.between


def test_at_a_runs_own_context_the_baseline_is_that_run():
    runs = curve()
    baseline = UniformCurve.of(runs).at(128.0)
    assert runs[2].nll == pytest.approx(baseline.nll)
    assert (baseline.error, baseline.between) == (0.0, (runs[2],))


@pytest.mark.parametrize("context", [63.9, 256.1, 1000.0])
def test_nothing_is_extrapolated(context):
    with pytest.raises(DataError, match=rf"context of {context} lies outside the uniform runs \(64.0 to 256.0\)"):
        UniformCurve.of(curve()).at(context)


def test_one_uniform_run_is_no_curve():
    with pytest.raises(DataError, match="needs uniform runs on both sides, and there are 1 in all"):
        UniformCurve.of([planted(streaming(64))]).at(70.0)


def test_uniform_runs_of_another_family_do_not_bend_the_curve():
    other = planted(kv_record("streaming:sinks=0,window=100,positions=original", 100.0))
    assert list(CONTEXTS) == UniformCurve.of([*curve(), other]).contexts


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
    found = of(judge_runs([*runs, ours]), ours.name).to_uniform
    share = math.log2(80 / 64) / math.log2(96 / 64)
    gaps = [ours.nll[token] - (1 - share) * runs[0].nll[token] - share * runs[1].nll[token] for token in ours.nll]
    assert pytest.approx(statistics.fmean(gaps)) == found.value
    assert pytest.approx(block_error(gaps)) == found.se
    assert found.n == 27
    unpaired = statistics.stdev(ours.nll.values()) / math.sqrt(400)
    assert unpaired > 20 * found.se


def test_a_planted_gain_is_found_and_a_planted_null_is_not():
    good, null = heads(64, 64, 128, 80.0), heads(64, 64, 256, 110.0)
    judged = judge_runs([*curve(), planted(good, -0.03), planted(null)])
    assert (of(judged, good["name"]).verdict, of(judged, null["name"]).verdict) == ("better", "no difference")


def test_a_gain_within_the_interpolation_error_is_no_gain():
    """A curve bent so much that half an octave of interpolation misses it by more than the run gains."""
    bent = {64: 2.0, 128: 1.5, 256: 1.4}
    runs = [run(streaming(context), [value + Random(f"{context}-{at}").gauss(0, 0.01) for at in range(400)])
            for context, value in bent.items()]  # fmt: skip
    ours = run(heads(64, 64, 128, 90.5), [1.73 + Random(f"ours-{at}").gauss(0, 0.01) for at in range(400)])
    one = of(judge_runs([*runs, ours]), ours.name)
    assert one.to_uniform.value / one.to_uniform.se < -10
    assert one.to_uniform.allowance > 0.02
    assert one.verdict == "no difference"


def test_a_uniform_twin_beside_a_run_raises_its_yardstick_and_is_not_judged():
    same = planted(twin(64), effect=-0.02)
    ours = planted(heads(64, 64, 128, 80.0), effect=-0.02)
    judged = judge_runs([*curve(), same, ours])
    assert of(judge_runs([*curve(), ours]), ours.name).verdict == "better"
    assert of(judged, ours.name).verdict == "no difference"
    assert (of(judged, same.name).to_uniform.adjusted, of(judged, same.name).verdict) == (None, "")
    assert same not in [one.run for one in judged.of("head-aware")]


def test_many_comparisons_make_each_of_them_harder():
    """Enough for one run is not enough for one of many (Holm)."""
    runs = curve()
    share = math.log2(80 / 64) / math.log2(96 / 64)
    base = {token: (1 - share) * loss + share * runs[1].nll[token] for token, loss in runs[0].nll.items()}

    def gaining(number: int, gain: float) -> KvRun:
        own = Random(number)
        noise = [own.gauss(0, 0.01) for _ in base]
        centre = statistics.fmean(noise)
        losses = [loss + gap - centre - gain for loss, gap in zip(base.values(), noise, strict=True)]
        return run(heads(64, 64, 100 + number, 80.0), losses)

    ours = gaining(0, 0.0012)
    alone = of(judge_runs([*runs, ours]), ours.name)
    among = of(judge_runs([*runs, ours, *(gaining(number, 0) for number in range(1, 9))]), ours.name)
    assert (alone.verdict, alone.to_uniform.adjusted, alone.to_uniform.family) == ("better", alone.to_uniform.p, 1)
    assert pytest.approx(min(1, 9 * alone.to_uniform.p)) == among.to_uniform.adjusted
    assert among.verdict == "no difference"


def test_all_verdicts_of_the_table_are_one_family_and_those_of_the_controls_another():
    ours = planted(heads(64, 64, 128, 80.0), -0.02)
    controls = [planted(permuted(ours.record.to_json(), seed)) for seed in range(3)]
    sinkless, scored = planted(window(64), 1.0), planted(kv_record("snapkv:budget=128", 128.0))
    judged = judge_runs([*curve(), planted(full(), -0.1), planted(twin(64)), ours, *controls, sinkless, scored])
    table = [of(judged, ours.name).to_uniform, of(judged, ours.name).to_permuted]
    table += [of(judged, one.name).to_uniform for one in (sinkless, scored)]
    assert [found.family for found in table] == [4] * 4
    assert [found.adjusted for found in table] == holm([found.p for found in table])
    assert [of(judged, one.name).to_uniform.family for one in controls] == [3] * 3
    assert of(judged, ours.name).to_full.adjusted is None


def test_two_uniform_runs_alone_judge_nothing_between_them():
    ours = planted(heads(64, 64, 128, 90.5), -0.5)
    one = of(judge_runs([planted(streaming(64)), planted(streaming(128)), ours]), ours.name)
    assert (one.to_uniform.allowance, one.verdict) == (None, "")
    assert one.to_uniform.value < -0.4


def test_permuted_controls_are_averaged_and_how_few_they_are_counts():
    ours = planted(heads(64, 64, 128, 80.0), -0.02)
    controls = [
        planted(permuted(ours.record.to_json(), seed), effect) for seed, effect in enumerate((0.01, -0.01, 0.03))
    ]
    one = of(judge_runs([*curve(), ours, *controls]), ours.name)
    gaps = [ours.nll[token] - statistics.fmean(other.nll[token] for other in controls) for token in ours.nll]
    means = [statistics.fmean(other.nll.values()) for other in controls]
    assert pytest.approx(statistics.fmean(gaps)) == one.to_permuted.value
    assert pytest.approx(block_error(gaps)) == one.to_permuted.se
    assert pytest.approx(4.302653 * statistics.stdev(means) / math.sqrt(3)) == one.to_permuted.allowance  # t, 2 d.f.
    assert (len(one.controls), one.against_permuted) == (3, "no difference")


def test_one_control_is_shown_and_not_judged():
    ours = planted(heads(64, 64, 128, 80.0), -0.02)
    one = of(judge_runs([*curve(), ours, planted(permuted(ours.record.to_json(), 0))]), ours.name)
    assert (pytest.approx(-0.02, abs=0.002), "") == (one.to_permuted.value, one.against_permuted)


def test_controls_of_another_run_or_another_budget_do_not_count():
    ours, other = planted(heads(64, 64, 128, 80.0)), planted(heads(64, 64, 256, 80.0))
    wrong_budget = planted({**permuted(ours.record.to_json(), 0), "context": 90.0})
    judged = judge_runs([*curve(), ours, other, planted(permuted(other.record.to_json(), 0)), wrong_budget])
    assert of(judged, ours.name).to_permuted is None
    assert of(judged, other.name).to_permuted is not None


def test_runs_that_are_one_run_under_two_names_count_once():
    ours = planted(heads(64, 64, 128, 80.0))
    again = run(heads(512, 64, 128, 80.0, "I"), list(ours.nll.values()))
    uniform_again = run(heads(64, 512, 128, 96.0, "I"), list(curve()[1].nll.values()))
    judged = judge_runs([*curve(), ours, again, uniform_again])
    assert len(judged.of("head-aware")) == 1
    assert {again.name, uniform_again.name} == {one.run.name for one in judged.repeats} or ours.name in {
        one.run.name for one in judged.repeats
    }
    assert of(judged, uniform_again.name).same_as.name == "B_streaming_96"


def test_runs_of_different_budgets_meet_at_each_ones_own_context_alone():
    """A window of 80 entries is held against the interpolated uniform run of 80, not against one of 64 or 96."""
    runs, sinkless = curve(), planted(window(80), effect=1.0)
    one = of(judge_runs([*runs, sinkless]), sinkless.name)
    assert one.baseline.context == 80.0
    assert [run.name for run in one.baseline.between] == ["B_streaming_64", "B_streaming_96"]
    far = planted(window(300), effect=1.0)
    refused = of(judge_runs([*runs, far]), far.name)
    assert (refused.to_uniform, refused.verdict) == (None, "")
    assert "a context of 300.0 lies outside the uniform runs" in refused.refused


def test_runs_of_the_same_budget_are_paired():
    sinkless = planted(window(64), effect=1.0)
    one = of(judge_runs([*curve(), sinkless]), sinkless.name)
    assert (pytest.approx(1.0, abs=0.01), "worse") == (one.to_uniform.value, one.verdict)


def test_parts_follow_from_strategy_texts_alone():
    runs = {
        "full": full(), "window": window(64), "uniform": streaming(64), "uniform twin": twin(64),
        "head-aware": sure(0.6, 64, 67.0), "permuted": permuted(heads(64, 64, 128, 80.0), 1),
        "score-based": kv_record("snapkv:budget=64", 64.0),
    }  # fmt: skip
    assert list(runs) == [KvRun(record_of(finished(record, [1.0, 2.0]))).part for record in runs.values()]
