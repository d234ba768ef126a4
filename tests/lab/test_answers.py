"""Answers outlive whatever ends their trial, and go when its record is there."""

from __future__ import annotations

import json

import attrs
import pytest
import torch
from tests.lab.as_json import add_json, as_json

from headwise import DataError
from headwise.recipe import Recipe
from headwise_lab.benchmarks.inputs import Inputs
from headwise_lab.store.locations import place
from headwise_lab.store.output_folder import Store
from headwise_lab.store.unfinished import forget, path_in
from headwise_lab.trial import answering
from headwise_lab.trial.answers import Answer, Answers
from headwise_lab.trial.record import Setting, identity
from headwise_lab.trial.run import run_trial

SETTING = Setting(recipe=Recipe.of("fastv:layer=2", "sparsity", "fixed:heads=3", keep=12), timed_batches=0)
ANSWERS = [Answer(prediction=f"é {i}", kept=[i, 3], visual=4, text=7, heads=[i], notes={"a": 0.1}) for i in range(4)]


@pytest.fixture(autouse=True)
def few_new_tokens(monkeypatch):
    monkeypatch.setattr(answering, "NEW_TOKENS", 3)


@pytest.fixture
def asked(monkeypatch):
    """The first questions of the batches that the model was asked; ``asked.end`` ends the trial before one."""
    real = answering.ask

    class Asked(list):
        end = None

        def __call__(self, inputs, batch, *rest):
            if batch.first == self.end:
                raise KeyboardInterrupt
            self.append(batch.first)
            return real(inputs, batch, *rest)

    spy = Asked()
    monkeypatch.setattr(answering, "ask", spy)
    return spy


def steady(record):
    """What of a record depends on its answers alone."""
    return {key: record[key] for key in ("id", "metric", "heads", "attention", "diversity", "overlap", "notes", "n")}


def test_an_interrupted_trial_goes_on_at_its_next_question(tiny, toy, tmp_path, asked):
    whole, outcomes = as_json(run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2)))
    store = Store.open(tmp_path / "out", "run")
    asked.clear()
    asked.end = 4
    with pytest.raises(KeyboardInterrupt):
        run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2), store.folder)
    assert asked == [0, 2]
    asked.clear()
    asked.end = None
    heard: list[int] = []
    record, again = as_json(run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2), store.folder, heard.append))
    assert asked == [4]
    assert heard == [2, 2, 2]
    assert again == outcomes
    assert steady(record) == steady(whole)
    assert path_in(store.folder, record["id"]).exists()
    add_json(store, record, again)
    assert not (store.folder / "answers").exists()


def test_other_batches_ask_what_is_missing_and_nothing_is_answered_twice(tiny, toy, tmp_path, asked):
    _, outcomes = as_json(run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2)))
    asked.end = 4
    with pytest.raises(KeyboardInterrupt):
        run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2), tmp_path)
    asked.clear()
    asked.end = None
    record, again = as_json(run_trial(SETTING, Inputs(tiny, toy, toy.questions, 3), tmp_path))
    assert asked == [3]  # the first three are among the four that were answered
    assert again == outcomes
    assert record["n"] == len(again) == len(toy.questions)


def test_what_fails_after_the_last_answer_asks_nothing_again(tiny, toy, tmp_path, asked, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(type(toy), "score", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2), tmp_path)
    asked.clear()
    record, outcomes = as_json(run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2), tmp_path))
    assert asked == []
    assert len(outcomes) == record["n"] == 6


def test_another_trial_takes_none_of_it(tiny, toy, tmp_path, asked):
    run_trial(SETTING, Inputs(tiny, toy, toy.questions, 6), tmp_path)
    for setting, questions in ((attrs.evolve(SETTING, recipe=Recipe.of()), 6), (SETTING, 4)):
        asked.clear()
        run_trial(setting, Inputs(tiny, toy, toy.questions[:questions], 6), tmp_path)
        assert asked == [0]


def test_a_question_that_fails_leaves_the_answers_before_it(tiny, toy, tmp_path):
    calls = iter(range(100))

    def fails_late(*_):
        if next(calls) > 20:
            raise RuntimeError("device gone")

    hook = tiny.model.model.language_model.register_forward_pre_hook(fails_late)
    try:
        with pytest.raises(DataError, match=r"^the model cannot answer question \d \(picture .*\): RuntimeError"):
            run_trial(SETTING, Inputs(tiny, toy, toy.questions * 5, 1), tmp_path)
    finally:
        hook.remove()
    inputs = Inputs(tiny, toy, toy.questions * 5, 1)
    assert Answers(tmp_path, identity(SETTING, inputs)).held(inputs.questions)


def test_running_out_of_memory_is_not_blamed_on_a_question(tiny, toy):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("no room")

    hook = tiny.model.model.language_model.register_forward_pre_hook(out_of_memory)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            run_trial(SETTING, Inputs(tiny, toy, toy.questions, 2))
    finally:
        hook.remove()


@pytest.mark.parametrize(
    "tail",
    [b'{"first": 2, "ids": ["2", "3"], "answ', b"null\n", b"[]\n", b"\xff\xfe\n", b"[" * 100_000, b'{"first": "x"}\n',
     b'{"first": 2, "ids": ["9", "3"], "answers": []}\n', b'{"first": 2, "ids": ["2"], "answers": [{"kept": 1}]}\n'],
)  # fmt: skip
def test_a_torn_or_foreign_line_is_nobodys_answer(tail, toy, tmp_path):
    kept = Answers(tmp_path, "a1")
    kept.add(0, toy.questions[:2], ANSWERS[:2])
    with path_in(tmp_path, "a1").open("ab") as stream:
        stream.write(tail)
    assert kept.held(toy.questions) == {0: ANSWERS[0], 1: ANSWERS[1]}
    kept.add(2, toy.questions[2:4], ANSWERS[2:])
    assert kept.held(toy.questions) == dict(enumerate(ANSWERS))


def test_writers_share_a_file(toy, tmp_path):
    one, other = Answers(tmp_path, "a1"), Answers(tmp_path, "a1")
    one.add(0, toy.questions[:2], ANSWERS[:2])
    other.add(0, toy.questions[:2], ANSWERS[:2])
    other.add(2, toy.questions[2:4], ANSWERS[2:])
    assert one.held(toy.questions) == dict(enumerate(ANSWERS))
    forget(tmp_path, "a1")
    one.add(0, toy.questions[:1], ANSWERS[:1])  # it did not know that the other was done
    assert other.held(toy.questions) == {0: ANSWERS[0]}


def test_a_record_without_a_result_leaves_the_answers(toy, tmp_path):
    store = Store.open(tmp_path / "out", "run")
    kept = Answers(store.folder, "a1")
    kept.add(0, toy.questions[:2], ANSWERS[:2])
    add_json(store, {"id": "a1", "error": "RuntimeError: device gone"})
    assert len(kept.held(toy.questions)) == 2


def test_notes_that_are_no_json_cost_nothing(toy, tmp_path):
    kept = Answers(tmp_path, "a1")
    kept.add(0, toy.questions[:1], [attrs.evolve(ANSWERS[0], notes={"a": {1, 2}})])
    assert kept.held(toy.questions) == {}


def test_behind_a_url_and_without_a_folder_nothing_is_kept(toy, tmp_path):
    for folder in (None, place("memory://answers/out"), tmp_path / "not there"):
        kept = Answers(folder, "a1")
        kept.add(0, toy.questions[:1], ANSWERS[:1])
        assert kept.held(toy.questions) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_one_sentence(toy, tmp_path):
    (tmp_path / "answers").write_text("a file")
    with pytest.raises(DataError, match=r"a1\.jsonl cannot be written to \(.+\); make room or give another --out"):
        Answers(tmp_path, "a1").add(0, toy.questions[:1], ANSWERS[:1])


def test_answers_are_plain_lines(toy, tmp_path):
    Answers(tmp_path, "a1").add(0, toy.questions[:1], ANSWERS[:1])
    (line,) = path_in(tmp_path, "a1").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["answers"][0]["prediction"] == "é 0"
