"""Result files of both harnesses become records: the figures they give, document by document where that is possible."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tests.lab.as_json import add_json, as_json, json_outcomes, json_records

from headwise import DataError
from headwise.cli import main
from headwise_lab.engines.importing import command, records_of
from headwise_lab.engines.results import read_run, result_files
from headwise_lab.report import build
from headwise_lab.store.output_folder import Store

SEEN = {"processed": 37.5, "kept": 16.0, "visual": 144.0, "heads": 4.0, "heads_of": 8.0}
OURS = "pretrained=demo-llava,strategy=[fastv:layer=2 fixed:heads=4],keep=16"
ALL = "pretrained=demo-llava,strategy=fastv:layer=2,keep=16"


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def lmms(folder: Path, scores, model_args=OURS, stamp="20261121_1", model="headwise", **more) -> Path:
    """A result file of lmms-eval with one task, pope, and its samples."""
    figures = {"pope_accuracy,none": sum(scores) / len(scores), "pope_accuracy_stderr,none": "N/A",
               "pope_f1_score,none": 0.123, "alias": "pope"}  # fmt: skip
    told = {
        "results": {"pope": more.pop("figures", figures)},
        "configs": {"pope": {}},
        "config": {"model": model, "model_args": model_args, "batch_size": "2", "device": "cpu", "limit": None},
        "n-samples": {"pope": {"effective": len(scores)}},
        "lmms_eval_version": "0.7.3",
        "date": stamp,
        "throughput": {f"avg_headwise_{key}": value for key, value in more.pop("seen", SEEN).items()},
    }
    samples = [
        {"doc_id": row, "target": "yes", "filtered_resps": "no", "input": f"Is it {row}?", "doc_hash": "same",
         "pope_accuracy": {"score": score, "prediction": "no"}, "pope_f1_score": {"score": score}}
        for row, score in enumerate(scores)
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stamp}_samples_pope.jsonl").write_text(jsonl(samples))
    path = folder / f"{stamp}_results.json"
    path.write_text(json.dumps(told))
    return path


LIKELIHOODS = [(-70.0, 100), (-40.0, 50), (-9.0, 10)]
BITS = 119 / 160 / math.log(2)


def lm(folder: Path, strategy="streaming:sinks=4,window=60", stamp="2026-11-21T14-39-49.1") -> Path:
    """A result file of lm-eval with a task that two filters read, and one of perplexity."""
    info = {"model": "demo-pythia", "weights": "0123456789abcdef", "strategies": {"kv_eviction": strategy},
            "attention": "sdpa", "recipe": None, "versions": {"headwise": "0.1.0"}}  # fmt: skip
    told = {
        "results": {
            "gsm": {"alias": "gsm", "sample_len": 2, "exact_match,strict": 0.0, "exact_match_stderr,strict": 0.0,
                    "exact_match,loose": 0.5, "exact_match_stderr,loose": 0.5},
            "text": {"word_perplexity,none": 12.5, "word_perplexity_stderr,none": "N/A", "bits_per_byte,none": BITS},
        },
        "configs": {"gsm": {}, "text": {}},
        "config": {"model": "headwise", "model_args": {"pretrained": "demo-pythia", "strategy": f"[{strategy}]"},
                   "headwise": info, "batch_size": 2, "device": "cpu"},
        "lm_eval_version": "0.4.13",
        "date": 1795271978.6,
    }  # fmt: skip
    asked = {"gen_args_0": {"arg_0": "1 + 1 ="}}
    gsm = [
        {
            "doc_id": row,
            "filter": rule,
            "exact_match": score,
            "target": "2",
            "arguments": asked,
            "filtered_resps": ["2"],
        }
        for rule, scores in (("strict", (0.0, 0.0)), ("loose", (1.0, 0.0)))
        for row, score in enumerate(scores)
    ]
    text = [
        {"doc_id": row, "filter": "none", "target": "x", "bits_per_byte": pair, "word_perplexity": pair}
        for row, pair in enumerate(LIKELIHOODS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for task, rows in (("gsm", gsm), ("text", text)):
        (folder / f"samples_{task}_{stamp}.jsonl").write_text(jsonl(rows))
    path = folder / f"results_{stamp}.json"
    path.write_text(json.dumps(told))
    return path


def only(path, wanted=()):
    (found,), notes = records_of(read_run(path), wanted)
    assert notes == []
    return as_json(found)


def test_a_mean_over_documents_is_the_headline_in_per_cent_with_its_documents(tmp_path):
    record, outcomes = only(lmms(tmp_path, [1.0, 0.0, 1.0, 1.0]))
    assert (record["benchmark"], record["n"]) == ("pope (lmms-eval)", 4)
    assert record["metric"] == {"name": "pope_accuracy", "value": 75.0, "se": pytest.approx(25.0)}
    assert record["metrics"] == {"pope_accuracy": 0.75, "pope_f1_score": 0.123}
    assert [one["score"] for one in outcomes] == [1.0, 0.0, 1.0, 1.0]
    assert (outcomes[1]["id"], outcomes[1]["question"], outcomes[1]["prediction"]) == ("1", "Is it 1?", "no")


def test_our_model_in_lmms_eval_is_told_by_its_recipe_and_what_it_measured(tmp_path):
    record, _ = only(lmms(tmp_path, [1.0, 0.0]))
    assert record["strategies"] == {
        "token_pruning": "fastv:layer=2",
        "head_count": "fixed:heads=4",
        "query_selection": "last_token",
        "head_scoring": "sum",
    }
    assert record["budget"] == {"given": "keep=16", "processed": 37.5, "kept": 16, "visual": 144}
    assert record["heads"] == {"of": 8.0, "mean": 4.0, "sd": None}
    assert record["study"] is None


def test_a_named_recipe_is_one_of_the_methods_of_a_report(tmp_path):
    record, _ = only(lmms(tmp_path, [1.0, 0.0], "pretrained=demo-llava,recipe=sparsevlm,tokens=48"))
    assert (record["study"], record["recipe"], record["budget"]["given"]) == ("methods", "sparsevlm", "tokens=48")


def test_a_metric_that_is_no_mean_comes_without_documents(tmp_path):
    record, outcomes = only(lmms(tmp_path, [1.0, 0.0]), ["acc", "pope_f1_score"])
    assert record["metric"] == {"name": "pope_f1_score", "value": 0.123, "se": None}
    assert outcomes == []


def test_results_without_samples_keep_the_error_the_harness_gives(tmp_path):
    figures = {"acc,none": 41.5, "acc_stderr,none": "N/A", "acc_stderr_clt,none": 1.5}
    path = lmms(tmp_path, [1.0, 0.0], figures=figures)
    (tmp_path / "20261121_1_samples_pope.jsonl").unlink()
    record, outcomes = only(path)
    assert (record["metric"], record["n"]) == ({"name": "acc", "value": 41.5, "se": 1.5}, 2)
    assert (outcomes, record["questions"]) == ([], None)


def test_a_figure_in_per_cent_already_is_left_so(tmp_path):
    record, outcomes = only(lmms(tmp_path, [1.0, 0.0], figures={"pope_accuracy,none": 50.0}))
    assert (record["metric"]["value"], len(outcomes)) == (50.0, 2)


def test_a_task_that_only_a_server_scores_is_said_and_left_out(tmp_path):
    found, notes = records_of(read_run(lmms(tmp_path, [1.0], figures={"submission,none": "N/A", "alias": "pope"})))
    assert found == []
    assert "task pope has no figure" in notes[0]


def test_other_models_are_taken_as_they_are(tmp_path):
    record, _ = only(lmms(tmp_path, [1.0, 0.0], "pretrained=llava-hf/llava-1.5-7b-hf", model="llava_hf", seen={}))
    assert (record["model"], record["strategies"]) == ("llava-1.5-7b-hf", {})
    assert record["budget"] == {"given": "everything"}


def test_a_task_of_lm_eval_is_read_through_the_filter_of_its_headline(tmp_path):
    first, strict = as_json(records_of(read_run(lm(tmp_path)))[0][0])
    assert (first["metric"]["name"], [one["score"] for one in strict]) == ("exact_match/strict", [0.0, 0.0])
    record, loose = as_json(records_of(read_run(lm(tmp_path)), ["exact_match/loose"])[0][0])
    assert record["metric"] == {"name": "exact_match/loose", "value": 50.0, "se": pytest.approx(50.0)}
    assert [(one["score"], one["question"], one["prediction"]) for one in loose] == [
        (1.0, "1 + 1 =", '["2"]'),
        (0.0, "1 + 1 =", '["2"]'),
    ]
    assert first["id"] != record["id"]


def test_bits_per_byte_are_paired_by_the_share_of_every_document(tmp_path):
    record, outcomes = as_json(records_of(read_run(lm(tmp_path)))[0][1])
    assert (record["metric"]["name"], record["metric"]["value"]) == ("bits_per_byte", pytest.approx(BITS))
    assert sum(one["score"] for one in outcomes) / 3 == pytest.approx(BITS)
    beyond = [(-nats / math.log(2) - BITS * size) * 3 / 160 for nats, size in LIKELIHOODS]
    assert record["metric"]["se"] == pytest.approx(math.sqrt(sum(one**2 for one in beyond) / 2 / 3))


def test_our_model_in_lm_eval_is_told_by_what_it_wrote_into_the_file(tmp_path):
    record, _ = as_json(records_of(read_run(lm(tmp_path)))[0][0])
    assert record["strategies"] == {"kv_eviction": "streaming:sinks=4,window=60"}
    assert (record["weights"], record["attention_implementation"]) == ("0123456789abcdef", "sdpa")
    assert record["versions"] == {"lm-eval": "0.4.13", "headwise": "0.1.0"}
    assert record["created"] == "2026-11-21T14:39:38+00:00"


def test_the_command_line_of_a_task_is_told_again(tmp_path):
    wanted = (
        "lmms-eval --model headwise --model_args 'pretrained=demo-llava,strategy=[fastv:layer=2 fixed:heads=4],keep=16'"
    )
    assert command(read_run(lmms(tmp_path, [1.0])), "pope") == f"{wanted} --tasks pope --batch_size 2 --device cpu"
    wanted = "headwise-lm-eval run --model headwise --model_args 'pretrained=demo-pythia,strategy=[h2o:budget=9]'"
    told = command(read_run(lm(tmp_path, "h2o:budget=9")), "gsm")
    assert told == f"{wanted} --tasks gsm --batch_size 2 --device cpu"


def test_the_same_documents_have_the_same_digest_whatever_was_answered(tmp_path):
    one, two = only(lmms(tmp_path, [1.0, 0.0]))[0], only(lmms(tmp_path, [0.0, 0.0], ALL, "20261121_2"))[0]
    other = only(lmms(tmp_path, [1.0, 0.0, 1.0], stamp="20261121_3"))[0]
    assert one["questions"] == two["questions"] != other["questions"]
    assert len({one["id"], two["id"], other["id"]}) == 3


def test_folders_are_searched_for_result_files_to_the_bottom(tmp_path):
    wanted = [lmms(tmp_path / "a" / "b", [1.0]), lm(tmp_path / "c")]
    assert set(wanted) == set(result_files([tmp_path, wanted[0]]))
    assert len(result_files([tmp_path, wanted[0]])) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no result file"):
        result_files([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is no result file of lmms-eval or lm-eval"),
        ('{"lm_eval_version": "0.4.13", "results": []}', "is no result file"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_result_file_is_said_by_name(tmp_path, content, said):
    path = tmp_path / "results_x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=f"results_x.json.* {said}"):
        read_run(path)


def test_a_strategy_that_is_not_installed_here_is_said_with_the_file(tmp_path):
    path = lmms(tmp_path, [1.0], "pretrained=demo-llava,strategy=fastw:layer=2,keep=16")
    with pytest.raises(DataError, match=r"20261121_1_results.json: .*fastw.*did you mean fastv"):
        records_of(read_run(path))


@pytest.mark.parametrize("arguments", ["x" * 5000, "pretrain" + "9" * 5000 + "=demo-llava", "strategy=[" + "y" * 5000])
def test_a_sentence_about_long_arguments_has_an_end(tmp_path, arguments):
    path = lmms(tmp_path, [1.0], arguments)
    with pytest.raises(DataError, match=r"20261121_1_results.json: ") as raised:
        records_of(read_run(path))
    assert len(str(raised.value)) < 1500


def test_half_of_a_surrogate_pair_is_said_with_the_file(tmp_path):
    path = lmms(tmp_path, [1.0])
    path.write_text(path.read_text().replace("pope_accuracy", r"pope\ud800"))
    with pytest.raises(DataError, match=r"20261121_1_results.json .* half of a surrogate pair"):
        read_run(path)


def test_a_malformed_sample_is_said_by_file_and_line(tmp_path):
    path = lmms(tmp_path, [1.0, 0.0])
    samples = tmp_path / "20261121_1_samples_pope.jsonl"
    samples.write_text("nonsense\n" + samples.read_text())
    with pytest.raises(DataError, match=r"samples_pope.jsonl:1 is not JSON"):
        records_of(read_run(path))


def run(*words):
    return main(["import-results", *map(str, words)])


def test_a_result_is_imported_once_and_shown_with_its_difference_to_the_first(tmp_path, capsys):
    lmms(tmp_path / "in", [1.0] * 10 + [0.0] * 10, ALL, "20261121_1")
    lmms(tmp_path / "in", [1.0] * 15 + [0.0] * 5, OURS, "20261121_2")
    assert run(tmp_path / "in", "--out", tmp_path / "out") == 0
    told = capsys.readouterr()
    assert "pope (lmms-eval): pope_accuracy 50 ± 11, n=20, demo-llava token_pruning=fastv:layer=2 keep=16" in told.out
    assert "head_count=fixed:heads=4 keep=16; to the first +25 ± 9.9" in told.out
    assert "2 of 2 results are new" in told.err
    assert run(tmp_path / "in", "--out", tmp_path / "out", "--json") == 0
    told = capsys.readouterr()
    assert "0 of 2 results are new" in told.err
    assert len(json.loads(told.out)) == len(json_records(tmp_path / "out")[0]) == 2


def test_results_join_the_folder_of_an_earlier_run(tmp_path, capsys):
    add_json(Store.open(tmp_path / "out", "run"), {"id": "aa", "error": "broken"})
    assert run(lm(tmp_path / "in"), "--out", tmp_path / "out") == 0
    assert len(json_records(tmp_path / "out")[0]) == 3
    assert {one["score"] for one in json_outcomes(tmp_path / "out", json_records(tmp_path / "out")[0][1]["id"])} == {
        0.0
    }


def test_errors_are_one_sentence_and_leave_no_folder(tmp_path, capsys):
    assert run(tmp_path / "none.json", "--out", tmp_path / "out") == 2
    assert "none.json cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_report_shows_imported_results_beside_each_other(tmp_path, capsys):
    lmms(tmp_path / "in", [1.0] * 10 + [0.0] * 10, ALL, "20261121_1", seen={**SEEN, "heads": 8.0})
    lmms(tmp_path / "in", [1.0] * 15 + [0.0] * 5, OURS, "20261121_2")
    lmms(tmp_path / "in", [1.0] * 17 + [0.0] * 3, "pretrained=demo-llava,recipe=vanilla", "20261121_3", seen={})
    lmms(tmp_path / "in", [1.0] * 12 + [0.0] * 8, "pretrained=demo-llava,recipe=sparsevlm,tokens=48", "20261121_4")
    lm(tmp_path / "in")
    assert run(tmp_path / "in", "--out", tmp_path / "out") == 0
    built = build(tmp_path / "out")
    page = built.markdown.read_text()
    assert [note for note in built.warnings if "no overlay of kept tokens" not in note] == []
    assert "## pope (lmms-eval) results" in page
    assert "| **keep 16 (37.5)** | 4 | 50.00 | - |" in page  # all heads, no control, then the same strategy with four
    assert "+25.00 ± 9.93" in page  # paired, by document, against all heads
    assert "Methods, pope (lmms-eval)" in page
    assert "| sparsevlm |" in page
    assert "gsm (lm-eval)" in page
    assert "cache streaming:sinks 4,window 60" in page
