"""Predictions for others to score: written whole, with what made them, and refused before the model is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import attrs
import fsspec
import pytest
from tests.lab.as_json import as_json
from tests.lab.conftest import Toy
from tests.lab.official_files import WRITERS

from headwise.cli import main
from headwise.errors import DataError
from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.benchmarks.submission import Submission, json_submission
from headwise_lab.store.locations import place
from headwise_lab.store.working_copy import at_hand
from headwise_lab.trial import answering
from headwise_lab.trial.record import Setting, identity
from headwise_lab.trial.run import run_trial
from headwise_lab.trial.submission import keep, submit, unanswered

FASTV = ("fastv:layer=1", "sum")


class Served(Toy):
    """The toy benchmark with its answers taken away."""

    def __init__(self, folder: Path, *, sheet: bool = True) -> None:
        super().__init__(folder)
        self.questions = [attrs.evolve(question, answers=()) for question in self.questions]
        self.sheet = sheet

    def submission(self, questions: Sequence, predictions: Sequence[str]) -> Submission:
        if not self.sheet:
            raise DataError("no sheet can be made")
        return json_submission({q.id: p for q, p in zip(questions, predictions, strict=True)})


@pytest.fixture(autouse=True)
def few_new_tokens(monkeypatch):
    monkeypatch.setattr(answering, "NEW_TOKENS", 3)


def setting():
    return Setting(recipe=Recipe.of(*FASTV, keep=16), timed_batches=1)


def test_questions_without_any_answer_are_a_servers(tmp_path, toy):
    assert unanswered(Served(tmp_path).questions)
    assert not unanswered(toy.questions)


def test_the_submission_holds_what_a_run_with_the_same_recipe_says(tiny, toy, tmp_path):
    served = Inputs(tiny, Served(tmp_path), Served(tmp_path).questions, 4)
    rows: list[int] = []
    path = submit(setting(), served, tmp_path / "out", rows.append)
    _, outcomes = as_json(run_trial(setting(), Inputs(tiny, toy, toy.questions, 4)))
    assert {outcome["id"]: outcome["prediction"] for outcome in outcomes} == json.loads(path.read_text())
    assert rows == [4, 2]
    assert path.name == f"toy-{identity(setting(), served)}.json"


def test_what_made_a_submission_is_written_beside_it(tiny, tmp_path):
    served = Inputs(tiny, Served(tmp_path), Served(tmp_path).questions, 4)
    path = submit(setting(), served, tmp_path / "out")
    told = json.loads(path.with_suffix(".made.json").read_text())
    assert told["strategies"]["token_pruning"] == "fastv:layer=1"
    assert told["command"].startswith("headwise run ")
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, f"{path.stem}.made.json"])


@pytest.mark.parametrize(
    ("sheet", "out", "complaint"),
    [(True, None, "the answers of toy; give --out a folder for the"), (False, "out", "no sheet can be made")],
)
def test_what_cannot_end_well_is_refused_before_the_model_is_asked(sheet, out, complaint, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("headwise_lab.trial.answering.ask", lambda *_, **__: pytest.fail("the model was asked"))
    benchmark = Served(tmp_path, sheet=sheet)
    with pytest.raises(DataError, match=complaint):
        submit(setting(), Inputs(tiny, benchmark, benchmark.questions, 4), out and tmp_path / out)


def test_a_benchmark_without_a_submission_says_so(tiny, toy, tmp_path):
    with pytest.raises(DataError, match=r"^only a server knows the answers of toy; it has no submission$"):
        submit(setting(), Inputs(tiny, toy, toy.questions, 4), tmp_path)
    with pytest.raises(DataError, match=r"^toy has no submission; its answers are in its files$"):
        keep(toy, toy.questions, [""] * 6, tmp_path, "x")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    served = Served(tmp_path)
    with pytest.raises(DataError, match=r"toy-x\.json cannot be written to \(.+\); give --out another folder$"):
        keep(served, served.questions, [""] * 6, tmp_path / "file", "x")


@pytest.fixture
def short_answers(monkeypatch):
    for name in ("mmvet:MmVet", "vizwiz:VizWizTest"):
        module, kind = name.split(":")
        monkeypatch.setattr(f"headwise_lab.benchmarks.official.{module}.{kind}.new_tokens", 2)


def run(benchmark, folder, model, *words):
    options = ["--benchmark", benchmark, "--data", str(folder), "--model", str(model), "--limit", "2"]
    return main(["run", *options, *words])


def test_run_writes_the_submission_of_a_served_split_and_no_score(tiny_folder, tmp_path, capsys, short_answers):
    made = WRITERS["vizwiz-test"](tmp_path / "data")
    assert run("vizwiz-test", made, tiny_folder, "--out", str(tmp_path / "out")) == 0
    told = capsys.readouterr().out
    assert told.startswith("submission written: ")
    written = json.loads(Path(told.split(": ", 1)[1].strip()).read_text())
    assert {"image", "answer"} == set(written[0])
    assert not (tmp_path / "out" / "results.jsonl").exists() or not (tmp_path / "out" / "results.jsonl").read_text()


def test_run_leaves_the_answers_that_a_judge_reads(tiny_folder, tmp_path, capsys, short_answers):
    made = WRITERS["mm-vet"](tmp_path / "data")
    assert run("mm-vet", made, tiny_folder, "--out", str(tmp_path / "out")) == 0
    (answers,) = (tmp_path / "out" / "submissions").glob("mm-vet-*.json")
    assert main(["judge", str(answers), "--data", str(made), "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["n"] == 2


def test_behind_a_url_a_submission_and_what_made_it_are_those_of_a_folder(tiny, tmp_path):
    served, url = Inputs(tiny, Served(tmp_path), Served(tmp_path).questions, 4), "memory://submitted/out"
    path = submit(setting(), served, tmp_path / "out")
    try:
        assert str(submit(setting(), served, place(url))) == f"{url}/submissions/{path.name}"
        with at_hand(place(url)) as copy:
            for name in (path.name, f"{path.stem}.made.json"):
                told, again = (json.loads((out / "submissions" / name).read_text()) for out in (tmp_path / "out", copy))
                assert moving(told) == moving(again)
    finally:
        fsspec.filesystem("memory").store.clear()


def moving(told):
    """What two runs have in common."""
    return {key: value for key, value in told.items() if key not in ("created", "command")}
