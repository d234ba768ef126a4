"""The KV part of a report: findings in plain sentences, tables, figures, pages, and folders with both kinds."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.lab.as_json import json_records
from tests.lab.fake_kv import (
    full,
    heads,
    kv_record,
    losses,
    permuted,
    streaming,
    sure,
    twin,
    window,
    write_kv,
)
from tests.lab.fake_records import study_a, write_folder, write_outcomes
from tests.lab.test_report_pages import Page

from headwise.cli import main
from headwise.errors import DataError
from headwise_lab.report import build
from headwise_lab.report.content import gather
from headwise_lab.report.html_page import html_page
from headwise_lab.report.markdown_page import markdown_page
from headwise_lab.report.published.context_recount import recount_contexts

CONTEXTS = (64, 96, 128, 192, 256)


def planted(record: dict, effect: float = 0.0) -> tuple[dict, list[float]]:
    return record, losses(record, effect)


def study(gain: float = -0.03) -> list:
    """A whole small study: a head-aware run with a planted ``gain``, an inverse one that loses, controls of both."""
    ours, inverse = heads(64, 64, 128, 80.0), heads(256, 128, 128, 178.2, "I")
    return [
        planted(full(), -0.1),
        *(planted(streaming(context)) for context in CONTEXTS),
        *(planted(window(context), 1.0) for context in (64, 128)),
        planted(twin(64)),
        planted(ours, gain),
        planted(inverse, 0.02),
        *(planted(permuted(one, seed), effect) for one, effect in ((ours, 0.0), (inverse, 0.02)) for seed in range(3)),
        *(
            planted(sure(at, base, base + 14 - 10 * at), 0.05 * (1 - at))
            for base in (64, 128)
            for at in (0.3, 0.6, 0.8)
        ),
        planted(kv_record("snapkv:budget=128", 128.0, group="score", name="snapkv_128"), 0.01),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("kv")
    write_kv(path, study())
    failed = {"id": "failed1", "text": {}, "error": "ContractError: broken", "command": "headwise ppl"}
    with (path / "results.jsonl").open("a") as stream:
        stream.write(json.dumps(failed) + "\n")
    return path


@pytest.fixture(scope="module")
def paths(folder):
    return build(folder, title="A KV study <b>")


def finding(paths, start: str) -> str:
    (told,) = [told for told in paths.findings if told.startswith(f"KV eviction, made-up on novel.txt: {start}")]
    return told


def test_a_planted_gain_is_the_first_finding_and_beats_chance(paths):
    assert (
        "of 8 head-aware runs, 1 beats StreamingLLM at an equal effective context (J_pos64_mix64_g128 -3.0"
        in (paths.findings[0])
    )
    assert "1 is better than the same windows shuffled over the heads" in finding(paths, "Knowing the heads")
    assert "Better than the uniform budget and than chance: J_pos64_mix64_g128" in finding(paths, "Knowing the heads")
    (concluded,) = paths.content.conclusions
    assert concluded.startswith("1 run beats StreamingLLM (equal windows for all heads) at an equal effective context")
    assert "; 1 of 1 also beat the same windows shuffled over the heads. " in concluded
    assert concluded.endswith("8 of 9 runs are worse.")


def test_without_a_gain_the_report_says_that_nothing_helps(tmp_path):
    write_kv(tmp_path, study(gain=0.0))
    told = gather(tmp_path).findings
    assert "no head-aware run beats StreamingLLM at an equal effective context; of 8 head-aware runs" in told[0]
    assert "0 are better than the same windows shuffled over the heads" in told[1]
    (concluded,) = gather(tmp_path).conclusions
    assert concluded.startswith("No eviction method beats StreamingLLM")


def test_sinks_inverse_and_thresholds_have_their_sentences(paths):
    sinks = finding(paths, "Sinks")
    assert "64 entries +17" in sinks
    assert "128 entries +17" in sinks
    inverse = finding(paths, "Inverse windows")
    assert "conventional is better. The best inverse run, I_pos256_mix128_g128 +" in inverse
    assert inverse.endswith("%: worse.")
    thresholds = finding(paths, "Confidence threshold")
    assert "base 64: +3." in thresholds
    assert "at no threshold better than the uniform budget" in thresholds


def test_what_eviction_costs_and_what_the_twins_show_is_said(paths):
    assert "against the full cache (perplexity 8." in finding(paths, "Eviction as such")
    assert "StreamingLLM with 68 entries" in finding(paths, "K_uniform64_aware")
    assert "B_streaming_96" in finding(paths, "Interpolation")


def test_runs_without_a_uniform_curve_are_not_compared(tmp_path):
    write_kv(tmp_path, [planted(heads(64, 64, 128, 80.0)), planted(heads(256, 128, 128, 178.2)), planted(full())])
    told = gather(tmp_path).findings
    assert not any("beats" in sentence or "worse" in sentence for sentence in told)
    assert "J_pos64_mix64_g128 is not compared: a context of 80.0 needs uniform runs on both sides" in "\n".join(told)


def test_a_run_outside_the_curve_is_not_compared_and_that_is_said(tmp_path):
    far = heads(512, 512, 512 + 1, 500.0)
    write_kv(tmp_path, [*(planted(streaming(context)) for context in CONTEXTS), planted(far)])
    told = "\n".join(gather(tmp_path).findings)
    assert f"{far['name']} is not compared: a context of 500.0 lies outside the uniform runs (64.0 to 256.0)" in told


def test_one_dealing_says_nothing_about_others_and_that_is_said(tmp_path):
    ours = heads(64, 64, 128, 80.0)
    runs = [*(planted(streaming(context)) for context in CONTEXTS), planted(ours, -0.03), planted(permuted(ours, 0))]
    write_kv(tmp_path, runs)
    told = "\n".join(gather(tmp_path).findings)
    assert "1 beats StreamingLLM" in told
    assert "windows were permuted at random over heads only once" in told


def test_every_kv_table_with_a_verdict_states_the_rule_and_its_unit(paths):
    text = paths.markdown.read_text(encoding="utf-8")
    blocks = "Differences are paired by block of 15 consecutive tokens, which depend on each other"  # of 400 tokens
    assert text.count(f"{blocks}; intervals are 95% (BCa bootstrap)") == 2, "the table of runs, and that of controls"
    for family in (14, 6):  # 8 head-aware, 1 scored, 2 windows, 2 to permuted, inverse windows; 2 * 3 controls
        assert f"after Holm's correction over the {family} comparisons of this table, is at most 0.05" in text


def test_missing_controls_and_a_missing_full_cache_are_said(tmp_path):
    write_kv(tmp_path, [*(planted(streaming(context)) for context in CONTEXTS), planted(heads(64, 64, 128, 80.0))])
    told = "\n".join(gather(tmp_path).findings)
    assert "no windows permuted at random over heads were run" in told
    assert "The full cache was not run" in told


def test_scaled_windows_and_texts_beyond_training_are_said(tmp_path):
    runs = [(record | {"scale": 0.25, "trained_context": 256}, values) for record, values in study()]
    write_kv(tmp_path, runs)
    told = "\n".join(gather(tmp_path).findings)
    assert "All windows are 0.25 of those of the study it re-creates" in told
    assert "The text of 401 tokens is longer than the 256 that the model was trained on" in told


def test_every_figure_of_the_seed_is_drawn(paths):
    names = {path.name.removeprefix("kv-eviction-made-up-on-novel-txt-") for path in paths.figures}
    assert {
        "ppl-vs-context.png", "sink-importance.png", "confidence-threshold.png", "best-configs.png",
        "inverse-experiment.png", "head-aware.png",
    } == names  # fmt: skip
    for path in paths.figures:
        assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_the_csv_carries_everything(paths, folder):
    with (folder / "tables" / "kv-eviction-made-up-on-novel-txt.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    ours = rows["J_pos64_mix64_g128"]
    assert (
        ours["verdict"], ours["against_permuted"], ours["permutations"], ours["n"]
    ) == ("better", "better", "3", "400")  # fmt: skip
    assert pytest.approx(-3, abs=0.3) == float(ours["to_uniform_percent"])
    assert 0 < float(ours["to_uniform_percent_se"]) < 0.2
    assert ours["strategies.kv_eviction"].startswith("head_windows:positional=64")
    assert (ours["context"], ours["kv_bytes"], ours["kv_bytes_planned"]) == ("80.0", "80000", "80000")
    assert json.loads(ours["uniform_between"]) == ["B_streaming_64", "B_streaming_96"]


def test_latex_and_markdown_tables_name_strategy_bytes_and_both_differences(paths, folder):
    latex = (folder / "tables" / "kv-eviction-made-up-on-novel-txt.tex").read_text(encoding="utf-8")
    assert r"\toprule" in latex
    assert r"J\_pos64\_mix64\_g128" in latex
    markdown = paths.markdown.read_text(encoding="utf-8")
    (line,) = [line for line in markdown.splitlines() if line.startswith("| J_pos64_mix64_g128 |")]
    for part in ("head_windows:positional=64", "| 80.0 |", "| 80000 | 80000 |", "| 400 |", "% ↑ |", "| better |"):
        assert part in line
    assert "# A KV study &lt;b&gt;" in markdown
    assert "ContractError: broken" in markdown


def test_our_own_table_reads_back_with_the_same_verdicts(paths):
    counted = recount_contexts(paths.markdown)
    found = {one.name: one for one in counted.matched}
    assert found["J_pos64_mix64_g128"].verdict == "better"
    assert found["I_pos256_mix128_g128"].verdict == "worse"
    assert found["K_uniform64_aware"].part == "uniform twin"
    assert counted.missing == ()


def test_the_page_stands_alone_and_leads_from_every_run_to_its_record(paths):
    page = Page(paths.html.read_text(encoding="utf-8"))
    assert page.open == []
    assert page.attributes.count(("svg", "class", "chart")) == 6
    assert set(page.links) <= set(page.values("id"))
    text = "".join(page.text)
    assert "StreamingLLM interpolated at the run's own context" in text
    assert "`sum` over all heads" not in text, "nothing is said about visual runs where there are none"


def test_a_folder_with_both_kinds_has_both_on_one_page(tmp_path):
    write_folder(tmp_path, study_a(keeps=(16,), n=12), images=False)
    write_kv(tmp_path, study())
    content = gather(tmp_path)
    for page in (markdown_page(content), html_page(content)):
        assert "made-up, keep 16" in page
        assert "KV eviction, made-up on novel.txt: Head-aware windows" in page
        assert "Differences are paired by question; intervals are 95%" in page
        assert "KV runs: effective context is" in page
    found = Page(html_page(content))
    assert set(found.links) <= set(found.values("id"))


def test_two_models_are_two_sections_and_are_never_mixed(tmp_path):
    write_kv(tmp_path, study())
    write_kv(tmp_path, [planted(kv_record("none", 401.0, model="another")), planted(streaming(64, model="another"))])
    told = {sentence.split(": ")[0] for sentence in gather(tmp_path).findings}
    assert {"KV eviction, made-up on novel.txt", "KV eviction, another on novel.txt"} == told


def test_lost_outcomes_are_a_warning_and_no_comparison(tmp_path):
    records = write_kv(tmp_path, study())
    lost = next(record for record in records if record["name"] == "J_pos64_mix64_g128")
    (tmp_path / "outcomes" / f"{lost['id']}.parquet").unlink()
    built = gather(tmp_path)
    assert any(f"Record {lost['id']} is compared with nothing" in warning for warning in built.warnings)
    assert any("J_pos64_mix64_g128 is not compared: its outcomes are missing" in told for told in built.findings)


@pytest.mark.parametrize("loss", [1e4, 1e12, -5.0])
def test_a_loss_that_no_token_has_is_a_warning_and_no_comparison(tmp_path, loss):
    record = write_kv(tmp_path, study())[-1]
    lines = [{"id": str(token), "score": loss if token == 1 else 2.0, "right": False} for token in range(1, 401)]
    write_outcomes(tmp_path, record["id"], lines)
    built = gather(tmp_path)
    assert any(f"Record {record['id']} is compared with nothing: token 1 has a loss" in told for told in built.warnings)
    markdown_page(built)


def test_outcomes_that_contradict_their_record_are_a_warning(tmp_path):
    records = write_kv(tmp_path, study())
    records[0]["nll"]["mean"] += 0.5
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert any("nats, its record says" in warning for warning in gather(tmp_path).warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": None}, "no usable 'context'"),
        ({"context": 0}, "no usable 'context': 0 is not above 0"),
        ({"nll": [1]}, "no usable 'nll'"),
        ({"metric": {"value": None}}, "metric.value"),
        ({"n": True}, "no usable 'n'"),
        ({"accuracy": 3}, "no usable 'accuracy': 3 is not an object"),
    ],
)
def test_a_malformed_kv_record_is_one_sentence(tmp_path, changes, message):
    (record, *_) = write_kv(tmp_path, [planted(full())])
    (tmp_path / "results.jsonl").write_text(json.dumps({**record, **changes}) + "\n")
    with pytest.raises(DataError, match=message):
        json_records(tmp_path)


def test_the_report_command_prints_the_verdict_and_writes_the_same_files_again(paths, folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / folder.name)  # this report has another title than the one others read
    assert main(["report", str(copy)]) == 0
    assert "beats StreamingLLM at an equal effective context" in capsys.readouterr().out.splitlines()[0]
    for path in (*paths.tables, *paths.figures):
        assert (copy / path.relative_to(folder)).read_bytes() == path.read_bytes()
