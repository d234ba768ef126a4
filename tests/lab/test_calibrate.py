"""``calibrate``: weights from what heads are worth, and the command as a user meets it."""

from __future__ import annotations

import json
import shlex

import attrs
import numpy as np
import pytest
import torch

from headwise import DataError
from headwise.cli import main
from headwise.head_weights import HeadWeights
from headwise_adapters.heads.ablation import Ablation
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.prompting import encode
from headwise_lab.commands import calibrate as command_module
from headwise_lab.heads.calibration import answered, calibrate, weights_of


@pytest.fixture(autouse=True)
def workplace(monkeypatch, tmp_path_factory):
    """Benchmarks are prepared once per test run, with few questions."""
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr("headwise_lab.benchmarks.questions.COUNT", 30)
    monkeypatch.setattr("headwise_lab.trial.answering.NEW_TOKENS", 2)


@pytest.fixture
def run(tiny_folder, tmp_path):
    def run(*words, out="w.json", limit="2"):
        return main(["calibrate", "--model", str(tiny_folder), "--out", str(tmp_path / out), "--limit", limit, *words])

    return run


def ablation(rise, mass):
    """Two questions whose means are the given values, one layer."""
    rise, mass = (np.array([[values], [values]], dtype=float) for values in (rise, mass))
    noise = np.array([[[1.0]], [[-1.0]]])
    return Ablation(loss=np.zeros(2), rise=rise + noise, mass=mass)


@pytest.mark.parametrize(
    ("rise", "mass", "by_mass", "wanted"),
    [
        ([3.0, -5.0, 1.0], [0.5, 0.9, 0.5], True, [0.75, 0, 0.25]),
        ([3.0, 1.0, 0.0], [0.1, 0.7, 0.2], True, [0.3, 0.7, 0]),
        ([3.0, 1.0, 0.0], [0.1, 0.7, 0.2], False, [0.75, 0.25, 0]),
        ([-3.0, 0.0, -1.0], [0.1, 0.7, 0.2], True, [1 / 3] * 3),
        ([3.0, 0.0, 0.0], [0.0, 0.7, 0.2], True, [1 / 3] * 3),
    ],
)
def test_weights_are_positive_rises_times_attention_to_the_image(rise, mass, by_mass, wanted):
    assert wanted == pytest.approx(weights_of(ablation(rise, mass), by_mass=by_mass)[0].tolist())


def test_answers_stand_behind_their_prompts_as_the_model_would_give_them(tiny, toy):
    """Answers of one and two words; the first batch row is the longer answer."""
    one, two = toy.questions[:2]
    questions = [attrs.evolve(one, answers=("red circle", "blue", "red circle")), attrs.evolve(two, answers=("no",))]
    tensors, answer = answered(tiny.processor, questions)
    prompts = encode(tiny.processor, questions)["input_ids"]
    assert torch.equal(prompts, tensors["input_ids"][:, :-2])
    assert [
        tiny.processor.tokenizer.decode(ids[own]) for ids, own in zip(tensors["input_ids"], answer, strict=True)
    ] == ["red circle", "no"]
    assert [[1, 1], [1, 0]] == answer[:, -2:].int().tolist() == tensors["attention_mask"][:, -2:].tolist()
    assert not answer[:, :-2].any()


def test_an_answer_without_a_token_is_refused(tiny, toy):
    with pytest.raises(DataError, match="answer '' of question 0 has no tokens"):
        answered(tiny.processor, [attrs.evolve(toy.questions[0], answers=("",))])


def test_loss_is_that_of_the_answers(tiny, toy):
    """Told by the model itself, question by question."""
    red = tiny.processor.tokenizer("red").input_ids[-1]
    wanted = []
    for question in toy.questions:
        with torch.no_grad():
            logits = tiny.model(**encode(tiny.processor, [question])).logits[0, -1]
        wanted.append(-float(logits.log_softmax(dim=-1)[red]))
    found = calibrate(Inputs(tiny, toy, toy.questions, 4), [0])
    assert np.mean(wanted) == pytest.approx(found.source["loss"], rel=1e-4)


def test_weights_do_not_depend_on_the_batch_and_progress_counts_every_head(tiny, toy):
    steps = []
    whole = calibrate(Inputs(tiny, toy, toy.questions, 6), [0, 2], advance=steps.append)
    assert sum(steps) == 6 * 2 * 8
    parts = calibrate(Inputs(tiny, toy, toy.questions, 4), [0, 2])
    for name in ("rise", "error", "mass"):
        np.testing.assert_allclose(whole.statistics[name], parts.statistics[name], atol=1e-4)
    assert whole.weights.shape == (3, 8)
    assert np.isnan(whole.weights).all(axis=1).tolist() == [False, True, False]
    assert pytest.approx(whole.weights[[0, 2]].sum(axis=1).tolist()) == [1, 1]
    assert np.nanmax(np.abs(whole.statistics["rise"])) > 0.01


def test_one_question_is_too_few(tiny, toy):
    with pytest.raises(DataError, match="needs at least two questions"):
        calibrate(Inputs(tiny, toy, toy.questions[:1], 4), [0])


def test_the_command_leaves_weights_that_prune_and_tells_where_they_come_from(run, tiny_folder, tmp_path, capsys):
    assert run("--layers", "1,0", "--batch", "1", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "w.json").read_text())
    assert (told["model"], told["layers"], told["heads"], told["weights"][2]) == ("tiny", 3, 8, None)
    source = told["source"]
    assert (source["benchmark"], source["seed"], source["n"]) == ("shapes-gqa", 1, 2)
    assert len(source["weights"]) == len(source["questions"]) == 16
    assert {"headwise", "torch", "transformers", "python"} == set(source["versions"])
    program, *words = shlex.split(source["command"])
    assert program == "headwise"
    assert main([*words, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**told, "source": 0} == {**again, "source": 0}
    strategy = ["--strategy", f"calibrated:weights={tmp_path / 'w.json'}", "--keep", "9", "--limit", "2"]
    assert main(["run", "--model", str(tiny_folder), "--benchmark", "shapes-gqa", *strategy]) == 0


def test_a_head_s_attention_to_the_image_counts_unless_it_is_not_wanted(run, tmp_path):
    assert run("--layers", "0") == run("--layers", "0", "--no-mass", out="plain.json") == 0
    by_mass, plain = (HeadWeights.load(tmp_path / name) for name in ("w.json", "plain.json"))
    assert (by_mass.source["by_mass"], plain.source["by_mass"]) == (True, False)
    assert plain.source["command"].endswith("--no-mass")
    rise, mass = plain.statistics["rise"][0].clip(min=0), plain.statistics["mass"][0]
    np.testing.assert_allclose(rise / rise.sum(), plain.weights[0], atol=1e-5)
    np.testing.assert_allclose(rise * mass / (rise * mass).sum(), by_mass.weights[0], atol=1e-5)


def test_the_table_lists_the_strongest_heads(run, tmp_path, capsys):
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny on 2 questions of shapes-gqa; the right answers' loss is ")
    header = next(place for place, line in enumerate(lines) if line.split()[:1] == ["Layer"])
    listed = [line.split() for line in lines[header + 1 : header + 1 + command_module.STRONGEST]]
    rises = [float(row[2]) for row in listed]
    found = HeadWeights.load(tmp_path / "w.json")
    assert rises == sorted(rises, reverse=True)
    assert np.sort(found.statistics["rise"].ravel())[::-1][:10] == pytest.approx(rises, abs=1e-4)
    assert all(found.weights[int(row[0]), int(row[1])] == pytest.approx(float(row[-1]), abs=1e-3) for row in listed)
    assert lines[-1] == f"Weights: {tmp_path / 'w.json'}"


def test_questions_of_the_evaluation_are_left_alone(run, tiny, tmp_path, capsys):
    """Another seed than that of ``run``; of a folder, those at the end."""
    assert run("--layers", "0", "--seed", "0") == 0
    assert "warning: `headwise run` asks the same questions" in capsys.readouterr().err
    from headwise_lab.benchmarks import benchmark
    from headwise_lab.benchmarks.questions import questions_of

    asked = benchmark("shapes-gqa")
    evaluated = questions_of(asked, limit=28)
    folder = evaluated[0].image.parents[1]
    assert run("--layers", "0", "--data", str(folder)) == 0
    assert "the last 2 of 30 questions; evaluate with --limit 28 at most" in capsys.readouterr().err
    calibrated = Inputs(tiny, asked, questions_of(asked, data=folder)[28:], 4)
    assert calibrated.digest == HeadWeights.load(tmp_path / "w.json").source["questions"]
    assert not {question.id for question in evaluated} & {question.id for question in calibrated.questions}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--layers", "3"], "layers '3' are not among 0..2, the decoder layers; write them as 0,1,2"),
        (["--layers", "x"], "layers 'x' are not among 0..2"),
        (["--layers", "-1"], "layers '-1' are not among 0..2"),
        (["--benchmark", "shapes-gqq"], "did you mean shapes-gqa"),
        (["--data", "/nowhere/at/all"], "there is no data folder /nowhere/at/all"),
        (["--model", "/nowhere/at/all"], "there is no model folder /nowhere/at/all"),
        (["--limit", "1"], "see headwise calibrate --help"),
        (["--dtype", "int4"], "dtype 'int4' is not one of auto, float32"),
    ],
)
def test_refusals_are_one_sentence_and_leave_no_file(run, tmp_path, capsys, words, told):
    assert run(*words) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("headwise: ")
    assert told in err
    assert list(tmp_path.iterdir()) == []


def test_too_few_questions_to_leave_some_are_refused(run, capsys):
    from headwise_lab.benchmarks import benchmark
    from headwise_lab.benchmarks.questions import questions_of

    folder = questions_of(benchmark("shapes-gqa"), limit=1)[0].image.parents[1]
    assert run("--data", str(folder), limit="30") == 2
    assert "has 30 questions, and some have to be left to evaluate on" in capsys.readouterr().err


@pytest.mark.parametrize(("out", "told"), [(".", "is a folder; give another --out"), ("f/w.json", "cannot be written")])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(run, tmp_path, capsys, out, told):
    (tmp_path / "f").write_text("")
    assert run("--model", "/nowhere/at/all", out=out) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_an_interruption_leaves_no_file(run, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("headwise_lab.heads.calibration.ablate", interrupt)
    assert run() != 0
    assert list(tmp_path.iterdir()) == []
