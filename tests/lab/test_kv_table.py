"""Recounting tables of perplexity by context: the head-aware cache study's figures, and small tables known by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from headwise.cli import main
from headwise.errors import DataError
from headwise_lab.report.published.context_page import context_lines, verdict
from headwise_lab.report.published.context_recount import recount_contexts

SEED = Path(__file__).parent / "data" / "seed_004_tables.md"

DELTAS = {
    "K_uniform64_aware": -0.6, "G_conf0.7_base64": -0.7, "G_conf0.6_base64": -0.5, "J_pos64_mix64_g128": 0.7,
    "G_conf0.8_base128": 0.4, "G_conf0.6_base128": 0.5, "K_uniform128_aware": 1.0, "I_pos256_mix128_g128": 0.0,
    "I_pos512_mix64_g128": 4.7, "I_pos256_mix64_g128": 2.9,
}  # fmt: skip


@pytest.fixture(scope="module")
def counted():
    return recount_contexts(SEED)


def written(tmp_path, *rows: str, header: str = "| Config | PPL | Eff.Ctx |", below: str = "") -> Path:
    path = tmp_path / "tables.md"
    rule = "|" + "---|" * (header.count("|") - 1)
    path.write_text("\n".join([header, rule, *rows, "", below]), encoding="utf-8")
    return path


def test_every_run_is_held_against_the_uniform_budget_at_its_own_context(counted):
    found = {one.name: round(one.delta, 1) + 0.0 for one in counted.matched}
    assert found == {**DELTAS, "G_conf0.55_base128": 1.6}


def test_the_interpolated_perplexities_are_those_of_pencil_and_paper(counted):
    uniform = {one.name: one.uniform for one in counted.matched}
    assert pytest.approx(10.57 + (9.52 - 10.57) * math.log2(68 / 64)) == uniform["K_uniform64_aware"]
    assert pytest.approx(9.52 + (9.14 - 9.52) * math.log2(178.2 / 128)) == uniform["I_pos256_mix128_g128"]


def test_no_head_aware_run_of_the_seed_beats_streaming_and_that_is_said(counted):
    assert not [one for one in counted.matched if one.verdict == "better"]
    assert verdict(counted) == (
        "No head-aware run beats StreamingLLM at an equal effective context beyond interpolation error: of 9 runs 3 are"
        " worse and 6 within it. The best is G_conf0.7_base64 with -0.7%, and 1.0% is error."
    )


def test_uniform_twins_are_the_yardstick_and_no_finding(counted):
    twins = {one.name: one.verdict for one in counted.matched if one.part == "uniform twin"}
    assert twins == {"K_uniform64_aware": "uniform itself", "K_uniform128_aware": "uniform itself"}
    assert "K_uniform64_aware is StreamingLLM with 68 entries under another name: its -0.6% is error" in "\n".join(
        context_lines(counted)
    )


def test_leaving_out_inner_uniform_runs_shows_how_bent_the_curve_is(counted):
    expected = {"B_streaming_128": 100 * ((10.57 + 9.14) / 2 / 9.52 - 1), "B_streaming_256": 100 * (9.165 / 9.14 - 1)}
    assert pytest.approx(expected) == counted.left_out


def test_the_sink_claim_is_recomputed_and_holds(counted):
    assert [round(pair.change) for pair in counted.sinks] == [53, 176, 266]
    (told,) = counted.holding
    assert "53% to 266%; counted +53%, +176%, +266%: holds" in told
    assert told.startswith("lines 18, 61: ")


def test_headlines_that_compare_different_budgets_are_named(counted):
    told = "\n".join(counted.differences)
    assert "changes against B_streaming_64 (64.0 entries) are of runs with other budgets" in told
    assert "K_uniform64_aware -1.4% with 68.0 entries (-0.6% at equal context)" in told
    assert "J_pos64_mix64_g128 -1.3% with 73.5 entries (+0.7% at equal context)" in told
    assert (
        "said to be 1.9% better than B_streaming_128, counted 1.89%; the budgets differ (178.2 entries against" in told
    )
    assert "I_pos256_mix128_g128 is 0.0% at equal context" in told
    assert len(counted.differences) == 3
    assert "G_conf0.6_base128" not in told, "128.3 and 128.0 are one budget"


def test_accuracies_are_within_their_binomial_error(counted):
    noise = counted.accuracies
    assert (noise.n, noise.pairs, noise.beyond) == (1000, 11, 0)
    assert pytest.approx(1.58, abs=0.005) == noise.error
    assert pytest.approx(-0.70) == noise.largest


def test_fewer_tokens_are_believed_when_given(counted):
    assert pytest.approx(counted.accuracies.error * 2) == recount_contexts(SEED, 250).accuracies.error


def test_what_the_tables_lack_is_named(counted):
    assert [told.split(" at ")[0].split(":")[0] for told in counted.missing] == [
        "the full cache",
        "windows permuted",
        "standard errors",
    ]


def test_a_row_printed_twice_counts_once_with_its_exact_context(counted):
    assert counted.runs == 18
    assert 178.2 in [one.context for one in counted.matched]


def test_a_row_printed_two_ways_is_named(tmp_path):
    counted = recount_contexts(written(tmp_path, "| B_streaming_64 | 10.0 | 64 |", "| B_streaming_64 | 10.1 | 64 |"))
    assert counted.differences == (
        "B_streaming_64 is printed as PPL 10.0 at 64 in line 3 and as PPL 10.1 at 64 in line 4",
    )


def test_a_planted_winner_is_found(tmp_path):
    rows = [f"| B_streaming_{context} | {10 - math.log2(context / 64):.2f} | {context} |" for context in (64, 128, 256)]
    counted = recount_contexts(written(tmp_path, *rows, "| mine | 9.00 | 90.5 |", "| theirs | 9.60 | 90.5 |"))
    assert {one.name: one.verdict for one in counted.matched} == {"mine": "better", "theirs": "worse"}
    assert verdict(counted).startswith("Beyond interpolation error, mine -5.3% beat StreamingLLM")


def test_nothing_is_extrapolated(tmp_path):
    rows = ["| B_streaming_64 | 10 | 64 |", "| B_streaming_128 | 9 | 128 |", "| mine | 8 | 200 |", "| less | 12 | 32 |"]
    counted = recount_contexts(written(tmp_path, *rows))
    assert counted.matched == ()
    assert [told.split(" outside")[0] for told in counted.unmatched] == ["mine (200) lies", "less (32) lies"]


def test_without_uniform_runs_nothing_is_compared(tmp_path):
    counted = recount_contexts(written(tmp_path, "| B_streaming_64 | 10 | 64 |", "| mine | 9 | 90 |"))
    assert "Nothing can be said about head-aware runs: they have different mean budgets" in verdict(counted)


def test_wrong_arithmetic_is_named(tmp_path):
    rows = ["| B_streaming_64 | 10.00 | 64 | baseline |", "| mine | 9.50 | 64 | -7.0% |"]
    counted = recount_contexts(written(tmp_path, *rows, header="| Config | PPL | Eff.Ctx | vs B_streaming_64 |"))
    assert counted.differences == ("line 4: mine is said to be -7.0% against B_streaming_64, counted -5.00%",)


def test_a_sink_claim_that_does_not_hold_is_named(tmp_path):
    rows = ["| A_window_64 | 20 | 64 |", "| B_streaming_64 | 10 | 64 |"]
    counted = recount_contexts(written(tmp_path, *rows, below="Sinks save 10%-50%."))
    assert counted.differences[0].endswith("counted +100%: does not hold")


def test_a_figure_that_is_none_is_one_sentence_with_its_line(tmp_path):
    with pytest.raises(DataError, match=r"tables\.md:3: 'much' is no figure"):
        recount_contexts(written(tmp_path, "| B_streaming_64 | much | 64 |"))


def test_the_command_prints_the_verdict_and_json(capsys):
    assert main(["report", "--table", str(SEED), "--n", "1000"]) == 0
    told = capsys.readouterr().out
    assert "No head-aware run beats StreamingLLM at an equal effective context" in told.splitlines()[1]
    assert main(["report", "--table", str(SEED), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["contexts"]
    assert {"within", "worse", "uniform itself"} == {one["verdict"] for one in found["matched"]}


def test_a_document_without_any_table_is_refused(tmp_path, capsys):
    (tmp_path / "empty.md").write_text("nothing\n")
    assert main(["report", "--table", str(tmp_path / "empty.md")]) == 2
    assert "holds no score table" in capsys.readouterr().err
