"""``run``, ``ablate`` and ``demo`` as a user meets them: what they print, leave behind, and say when they cannot."""

from __future__ import annotations

import json
import shlex

import fsspec
import pytest
from tests.lab.as_json import json_outcomes, json_records

from headwise import ModelError
from headwise.cli import main
from headwise_lab.commands import demo as demo_module
from headwise_lab.models import load as models_io
from headwise_lab.store.locations import place
from headwise_lab.store.working_copy import at_hand
from headwise_lab.sweeps import runner
from headwise_lab.sweeps.status import look
from headwise_lab.sweeps.tally import Tally
from headwise_lab.trial import answering

SHARP = [word for text in ("fastv:layer=2", "sparsity", "fixed:heads=4", "last_token") for word in ("--strategy", text)]
SMALL = ["--benchmarks", "shapes-gqa", "--strategies", "sparsity", "--heads", "4", "--keep", "12", "--limit", "5"]


@pytest.fixture(autouse=True)
def workplace(monkeypatch, tmp_path_factory):
    """Benchmarks are prepared once per test run, with few questions, and answers are short."""
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr("headwise_lab.benchmarks.questions.COUNT", 30)
    monkeypatch.setattr(answering, "NEW_TOKENS", 2)


def run(tiny_folder, *words):
    return main(["run", "--model", str(tiny_folder), "--benchmark", "shapes-gqa", "--limit", "5", *words])


def ablate(tiny_folder, out, *words, study="a"):
    return main(["ablate", "--study", study, "--model", str(tiny_folder), "--out", str(out), *SMALL, *words])


def refusal(capsys):
    """The one line that an error leaves; anything before it is progress."""
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    (line,) = [line for line in told.err.splitlines() if line.startswith("headwise: ")]
    assert told.err.splitlines()[-1] == line
    return line


def test_run_prints_one_record_and_its_command_gives_the_same_record_again(tiny_folder, capsys, tmp_path):
    assert run(tiny_folder, "--keep", "16", *SHARP, "--json", "--out", str(tmp_path / "o")) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["budget"] == {"given": "keep=16", "processed": pytest.approx(304 / 3, abs=1e-4), "kept": 16,
                                "visual": 144}  # fmt: skip
    assert record["n"] == 5
    records, warnings = json_records(tmp_path / "o")
    assert records == [record]
    assert warnings == []
    assert len(json_outcomes(tmp_path / "o", record["id"])) == 5
    program, *words = shlex.split(record["command"])
    assert program == "headwise"
    assert main([*words, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    moving = ("created", "cost", "timing")
    assert {k: v for k, v in again.items() if k not in moving} == {k: v for k, v in record.items() if k not in moving}


def test_run_shows_predictions_beside_right_answers(tiny_folder, capsys, tmp_path):
    assert run(tiny_folder, "--show", "2", "--quiet", "--out", str(tmp_path / "o")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    outcomes = json_outcomes(tmp_path / "o", json_records(tmp_path / "o")[0][0]["id"])
    asked = out.split("\n\n")[1:]
    assert len(asked) == 2
    for block, outcome in zip(asked, outcomes, strict=False):
        question, said, right, score = block.splitlines()
        assert question.startswith(f"{outcome['id']}  ")
        assert said.split() == ["said", *(outcome["prediction"].split() or ["(nothing)"])]
        assert right.startswith("  right  ")
        assert score == f"  score  {outcome['score']:g}"


def test_run_stores_behind_a_url_what_it_prints(tiny_folder, capsys):
    url = "memory://run/out"
    assert run(tiny_folder, "--keep", "16", *SHARP, "--json", "--out", url) == 0
    told = capsys.readouterr()
    assert f"stored in {url}\n" in told.err
    with at_hand(place(url)) as copy:
        records, warnings = json_records(copy)
        assert len(json_outcomes(copy, records[0]["id"])) == 5
    assert (records, warnings) == ([json.loads(told.out)], [])
    fsspec.filesystem("memory").store.clear()
    assert run(tiny_folder, "--out", "nosuch://run/out") == 2
    assert "nosuch://run/out begins with nosuch://, which fsspec does not know" in refusal(capsys)


def test_run_says_both_budgets_to_a_reader(tiny_folder, capsys):
    assert run(tiny_folder, "--tokens", "101.3333", *SHARP) == 0
    told = capsys.readouterr().out
    assert "tokens=101.333: 16 of 144 visual tokens kept, 101.33 processed per layer on average" in told
    assert "4.00 of 8 decided" in told


def test_run_without_a_strategy_is_the_unpruned_model(tiny_folder, capsys):
    assert run(tiny_folder, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["budget"] == {"given": "everything", "processed": 144.0, "kept": 144, "visual": 144}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tokens", "99", "--keep", "3", *SHARP], "both tokens=99 and keep=3 are given; a run has one budget"),
        (SHARP, "pruning needs a budget"),
        (["--keep", "5"], "keeps every visual token, so keep=5 cannot be met"),
        (["--tokens", "5", *SHARP], "the smallest feasible budget is tokens=96.33"),
        (["--keep", "145", *SHARP], "keep=145 is more than the 144 visual tokens of tiny"),
        (["--keep", "5", "--strategy", "fastv", "--strategy", "fixed:heads=9"], "wants 9 heads, but this model has 8"),
        (["--keep", "5", "--strategy", "fastvv"], "did you mean fastv"),
        (["--recipe", "finepruna", "--keep", "5"], "did you mean finepruner"),
        (["--benchmark", "shapes-gqq"], "did you mean shapes-gqa"),
        (["--positions", "left"], "positions='left' is not one of keep, compact"),
        (["--min-mass", "7"], "min_mass=7 is not a share"),
        (["--limit", "0"], "see headwise run --help"),
        (["--data", "/nowhere/at/all"], "there is no data folder /nowhere/at/all"),
        (["--model", "/nowhere/at/all"], "there is no model folder /nowhere/at/all"),
        (["--dtype", "int4"], "dtype 'int4' is not one of auto, float32"),
        (["--keep", "x"], "see headwise run --help"),
    ],
)
def test_run_refuses_in_one_sentence(tiny_folder, capsys, words, told):
    assert run(tiny_folder, *words) == 2
    assert told in refusal(capsys)


def test_run_refuses_an_empty_benchmark(tiny_folder, capsys, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "testdev_balanced_questions.json").write_text("{}")
    assert run(tiny_folder, "--data", str(tmp_path)) == 2
    assert "holds no question" in refusal(capsys)


def test_run_refuses_a_model_that_is_no_folder_of_a_model(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, told in (("empty", "has no config.json"), ("file", "is a file")):
        assert run(tmp_path / name) == 2
        assert told in refusal(capsys)


@pytest.mark.parametrize("command", ["run", "ablate", "demo"])
def test_every_command_refuses_a_folder_that_is_not_its_own(command, tiny_folder, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(models_io, "shipped", lambda _: tiny_folder)
    calls = {
        "run": lambda out: run(tiny_folder, "--out", str(out)),
        "ablate": lambda out: ablate(tiny_folder, out),
        "demo": lambda out: main(["demo", "--out", str(out)]),
    }
    (tmp_path / "file").write_text("x")
    for name, content, told in (
        ("foreign", {"thesis.tex": "x"}, "is not an output folder of headwise"),
        ("torn", {"headwise.json": '{"kind": '}, "half-written, or headwise did not write it"),
        ("other", {"headwise.json": '{"schema": 1, "kind": "study z", "headwise": "0"}'}, "belongs to study z"),
    ):
        (tmp_path / name).mkdir()
        for file, text in content.items():
            (tmp_path / name / file).write_text(text)
        assert calls[command](tmp_path / name) == 2
        assert told in refusal(capsys)
    assert calls[command](tmp_path / "file" / "out") == 2
    assert "cannot be written to" in refusal(capsys)


def test_an_interrupted_study_goes_on_and_ends_with_its_report(tiny_folder, capsys, tmp_path, monkeypatch):
    real, calls, out = runner.run_trial, [], tmp_path / "out"

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(runner, "run_trial", stopping)
    assert ablate(tiny_folder, out) == 130
    assert "run the same line again to go on" in " ".join(capsys.readouterr().err.split())
    assert len(json_records(out)[0]) == 2
    assert not (out / "report.html").exists()
    assert ablate(tiny_folder, out) == 0
    told = capsys.readouterr().out
    assert "2 trials run, 2 were there already." in told
    assert str(out / "report.html") in told
    assert "sum (all heads)" in told
    assert "…" not in told  # no figure is cut off, however narrow the terminal
    assert (out / "report.html").is_file()
    before = (out / "results.jsonl").read_bytes()
    assert ablate(tiny_folder, out) == 0
    assert "0 trials run, 4 were there already." in capsys.readouterr().out
    assert (out / "results.jsonl").read_bytes() == before
    assert len(calls) == 5
    assert {record["study"] for record in json_records(out)[0]} == {"a"}


def test_study_b_compares_query_strategies(tiny_folder, capsys, tmp_path):
    words = ["--strategies", "last_5_tokens", "--scorer", "entropy"]
    small = [word for word in SMALL if word not in ("--strategies", "sparsity")]
    out = str(tmp_path / "out")
    assert main(["ablate", "--study", "b", "--model", str(tiny_folder), "--out", out, *small, *words]) == 0
    texts = [record["strategies"] for record in json_records(tmp_path / "out")[0]]
    assert len(texts) == 4
    assert {text["query_selection"] for text in texts[:3]} == {"last_token"}
    assert texts[3]["query_selection"].startswith("last_5_tokens")
    assert texts[3]["head_scoring"].startswith("entropy")
    capsys.readouterr()


def test_a_strategy_that_breaks_costs_its_own_trial_only(tiny_folder, capsys, tmp_path, monkeypatch):
    real = runner.run_trial

    def breaking(setting, *more):
        if setting.recipe.strategies["head_scoring"].name == "random":
            raise RuntimeError("shapes do\nnot match")
        return real(setting, *more)

    monkeypatch.setattr(runner, "run_trial", breaking)
    assert ablate(tiny_folder, tmp_path / "out") == 2
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith("headwise: 1 trial failed; the report in ")
    assert (tmp_path / "out" / "report.html").is_file()
    (failed,) = [record for record in json_records(tmp_path / "out")[0] if record.get("error")]
    assert failed["error"] == "RuntimeError: shapes do not match"


def test_a_budget_out_of_reach_is_not_run_and_the_others_are(tiny_folder, tmp_path, monkeypatch):
    tallies = []
    monkeypatch.setattr("headwise_lab.commands.ending.finish", lambda _, tally, *__: tallies.append(tally))
    words = [word for word in SMALL if word not in ("--keep", "12")]
    line = ["ablate", "--study", "a", "--model", str(tiny_folder), "--out", str(tmp_path), *words]
    assert main([*line, "--tokens", "5", "--tokens", "100"]) == 0
    assert tallies == [Tally(ran=4, refused=3)]
    records, _ = json_records(tmp_path)
    assert [record["budget"]["given"] for record in records if record.get("refused")] == ["tokens=5"] * 3


def moving(record):
    """A record without what two runs of a trial do not share."""
    return {key: value for key, value in record.items() if key not in ("created", "cost", "timing")}


def test_ablate_and_a_sweep_of_the_same_study_make_the_same_records(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("headwise_lab.commands.ending.finish", lambda *_: None)
    assert ablate(tiny_folder, tmp_path / "ablate") == 0
    (tmp_path / "s.toml").write_text(
        f'study = "a"\nmodels = ["{tiny_folder}"]\nbenchmarks = ["shapes-gqa"]\nlimit = 5\nbudgets.keep = [12]\n'
        '[[grids]]\nhead_scoring = ["sparsity"]\nheads = [4]\n'
    )
    line = ["sweep", str(tmp_path / "s.toml"), "--workers", "0", "--out", str(tmp_path / "sweep")]
    for part in ("1/2", "2/2"):  # two machines share a folder; neither runs what is the other's
        assert main([*line, "--part", part]) == 0
    found = {name: json_records(tmp_path / name)[0] for name in ("ablate", "sweep")}
    by_id = {name: {record["id"]: moving(record) for record in records} for name, records in found.items()}
    assert len(by_id["ablate"]) == 4
    assert by_id["ablate"] == by_id["sweep"]
    assert (tmp_path / "sweep" / "results.jsonl").read_text().count("\n") == 4
    order = [record["id"] for record in found["ablate"]]
    assert [record["id"] for record in found["sweep"]] == [*order[::2], *order[1::2]]


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "1/2/3", "a/b", "-1/2"])
def test_a_part_that_is_none_is_refused(capsys, tmp_path, part):
    assert main(["sweep", "methods", "--out", str(tmp_path / "o"), f"--part={part}"]) == 2
    assert f"--part {part} is no part; give I/N with I from 1 to N, such as 2/3" in refusal(capsys)
    assert not (tmp_path / "o").exists()


def test_a_part_beyond_the_last_trial_has_nothing_to_do(tiny_folder, capsys, tmp_path):
    (tmp_path / "s.toml").write_text(
        f'models = ["{tiny_folder}"]\nbenchmarks = ["shapes-gqa"]\nlimit = 5\nbudgets.keep = [12]\nrecipes = ["fastv"]'
    )
    assert main(["sweep", str(tmp_path / "s.toml"), "--out", str(tmp_path / "o"), "--part", "3/3"]) == 0
    assert "part 3/3 has nothing to do: the sweep has 2 trials" in capsys.readouterr().err


def ablate_methods(tiny_folder, out, *words):
    small = ["--benchmarks", "shapes-gqa", "--limit", "5"]
    return main(["ablate", "--study", "methods", "--model", str(tiny_folder), "--out", str(out), *small, *words])


def test_methods_are_compared_where_they_can_and_say_why_they_cannot(tiny_folder, capsys, tmp_path):
    out, words = tmp_path / "out", ["--recipe", "random", "--recipe", "vispruner", "--tokens", "100", "--tokens", "60"]
    assert ablate_methods(tiny_folder, out, *words) == 0
    told = capsys.readouterr()
    assert "6 trials run, 0 were there already. 1 could not be run; the report says why." in told.out
    reason = "tokens=60 cannot be met when pruning before layer 2 of 3"
    assert f"not run: shapes-gqa, tokens=60, fastv: {reason}" in told.err
    assert reason in (out / "report.md").read_text()
    records, _ = json_records(out)
    rest = ["vanilla", "fastv", "random", "vispruner", "random", "vispruner"]
    assert [record["recipe"] for record in records] == ["fastv", *rest]  # what cannot be run is said first
    assert [record["recipe"] for record in records if record.get("refused")] == ["fastv"]
    assert {record["study"] for record in records} == {"methods"}
    before = (out / "results.jsonl").read_bytes()
    assert ablate_methods(tiny_folder, out, *words) == 0
    assert "0 trials run, 6 were there already. 1 could not be run" in capsys.readouterr().out
    assert (out / "results.jsonl").read_bytes() == before


def test_a_method_that_the_model_has_no_eyes_for_is_not_run(tiny_folder, capsys, tmp_path, monkeypatch):
    real = runner.run_trial

    def blind(setting, *more):
        if setting.recipe.name == "vispruner":
            raise ModelError("this tower shows no attention")
        return real(setting, *more)

    monkeypatch.setattr(runner, "run_trial", blind)
    words = ["--recipe", "vispruner", "--recipe", "random", "--keep", "12"]
    assert ablate_methods(tiny_folder, tmp_path / "out", *words) == 0
    assert "not run: shapes-gqa, keep=12, vispruner: this tower shows no attention" in capsys.readouterr().err
    refused = [record["refused"] for record in json_records(tmp_path / "out")[0] if record.get("refused")]
    assert refused == ["this tower shows no attention"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tokens", "5", "--recipe", "dart"], "the smallest feasible budget is tokens=96.33"),
        (["--recipe", "drat"], "--recipe: there is no recipe 'drat'; did you mean dart"),
        (["--heads", "4"], "--heads belongs to study a and b and means nothing in study methods; leave it out"),
        (["--scorer", "sum"], "--scorer belongs to study b and means nothing in study methods; leave it out"),
        (["--text", "kjv"], "--text belongs to study kv and means nothing in study methods; leave it out"),
    ],
)
def test_a_comparison_of_methods_is_refused_in_one_sentence(tiny_folder, capsys, tmp_path, words, told):
    assert ablate_methods(tiny_folder, tmp_path / "out", *words) == 2
    assert told in refusal(capsys)


def test_a_setting_of_a_recipe_holds_unless_it_is_given(tiny_folder, capsys):
    for words, expected in (([], "weighted"), (["--aggregate", "normalised"], "normalised")):
        assert run(tiny_folder, "--recipe", "finepruner-dynamic", "--keep", "12", "--json", *words) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["recipe"], record["settings"]["aggregate"]) == ("finepruner-dynamic", expected)
        assert f"--recipe finepruner-dynamic --keep 12{''.join(f' {word}' for word in words)} " in record["command"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--study", "c"],
            "there is no study 'c'; give a (head scoring), b (query selection), kv (KV eviction) or methods",
        ),
        (["--tokens", "99"], "both --tokens and --keep are given"),
        (["--heads", "9"], "wants 9 heads, but this model has 8"),
        (["--strategies", "sparcity"], "--strategies: there is no head_scoring strategy 'sparcity'; did you mean"),
        (["--benchmarks", "shapes-gqq"], "--benchmarks: there is no benchmark 'shapes-gqq'; did you mean shapes-gqa"),
        (["--positions", "left"], "--positions: 'left' is not allowed; allowed: keep, compact"),
        (["--sink-share", "7"], "--sink-share: 7 is no share; allowed: 0 to 1"),
        (["--model", "/nowhere/at/all"], "there is no model folder /nowhere/at/all"),
        (["--text", "kjv"], "--text belongs to study kv and means nothing in study a; leave it out"),
        (["--recipe", "dart"], "--recipe belongs to study methods and means nothing in study a; leave it out"),
        (["--scorer", "sum"], "--scorer belongs to study b and means nothing in study a; leave it out"),
    ],
)
def test_ablate_refuses_in_one_sentence(tiny_folder, capsys, tmp_path, words, told):
    assert ablate(tiny_folder, tmp_path / "out", *words) == 2
    assert told in refusal(capsys)


def test_an_infeasible_average_names_the_smallest(tiny_folder, capsys, tmp_path):
    words = [word for word in SMALL if word not in ("--keep", "12")]
    out = str(tmp_path / "out")
    assert main(["ablate", "--study", "a", "--model", str(tiny_folder), "--out", out, *words, "--tokens", "5"]) == 2
    assert "the smallest feasible budget is tokens=96.33" in refusal(capsys)


def test_the_demo_leaves_a_report_and_names_its_folder(tiny_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(models_io, "shipped", lambda _: tiny_folder)
    monkeypatch.setattr(demo_module, "BENCHMARKS", ("shapes-gqa",))
    monkeypatch.setattr(demo_module, "_language_models", list)  # tested in test_kv_study.py
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--limit", "5"]) == 0
    told = capsys.readouterr().out
    folder = tmp_path / "headwise-demo"
    assert "headwise-demo" in told.splitlines()[-1]
    for name in ("report.html", "report.md", "results.jsonl", "figures", "tables"):
        assert (folder / name).exists()
    records, _ = json_records(folder)
    assert len({record["strategies"]["head_scoring"].partition(":")[0] for record in records}) >= 14
    assert {record["budget"]["kept"] for record in records} == {16, 144}
    assert {record["study"] for record in records} == {"demo"}
    status = look(folder)
    assert (status.title, [state for _, state in status.trials]) == ("Headwise demo", ["done"] * len(records))


def test_the_demo_refuses_more_tokens_than_there_are(tiny_folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(models_io, "shipped", lambda _: tiny_folder)
    assert main(["demo", "--keep", "145", "--out", str(tmp_path / "o")]) == 2
    assert "keep=145 is more than the 144 visual tokens" in refusal(capsys)
