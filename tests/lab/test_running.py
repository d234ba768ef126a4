"""Running plans: what an executor is answered, what is put on record, and how plans and parts make one sweep."""

from __future__ import annotations

from functools import partial
from io import StringIO
from itertools import count
from types import SimpleNamespace

import attrs
import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.lab.as_json import has_result
from tests.lab.fake_sweep import QUESTIONS, plan, result, trials

from headwise import BudgetError, DataError
from headwise_lab.store.locations import place
from headwise_lab.store.output_folder import Store
from headwise_lab.store.record_types import Metric, Record
from headwise_lab.store.records import read_lines
from headwise_lab.sweeps.display import Display
from headwise_lab.sweeps.executor import Advanced, AttemptResult, Ended, Started
from headwise_lab.sweeps.folder import locked, read_plan
from headwise_lab.sweeps.plan import Plan, check_any_left, numbered, plan_of
from headwise_lab.sweeps.running import Order, run
from headwise_lab.sweeps.status import LOWER_IS_BETTER, look, standing
from headwise_lab.sweeps.trials import Trial


class Scripted:
    """Runs trials as a list of outcomes per trial says, and asks again whenever it is told to."""

    def __init__(self, **script):
        self.script, self.works, self.answers = script, [], []

    def run(self, work, listed, tell):
        self.works.append((work, [trial.id for trial in listed]))
        waiting = list(listed)
        while waiting:
            trial = waiting.pop(0)
            assert tell(Started(trial.id)) is False
            assert tell(Advanced(trial.id, QUESTIONS)) is False
            record, outcomes = result(trial)
            left = self.script.get(f"t{int(trial.id, 16)}")
            outcome = left.pop(0) if left else AttemptResult(record=record, outcomes=outcomes)
            again = tell(Ended(trial.id, outcome))
            self.answers.append((trial.id, again))
            waiting += [trial] * again


def swept(out, plans, executor, retries=1, part=None):
    with locked(out, part):
        order = Order(
            title="Fake", plans=plans, store=Store.open(out, "sweep"), executor=executor, retries=retries, part=part
        )
        return run(order, Display(Console(file=StringIO()), numbered(plans, part)))


def lines(out):
    return [record for _, record in read_lines(out / "results.jsonl")[0]]


def failed(*, again=True):
    return AttemptResult(error="RuntimeError: no", again=again)


def test_an_executor_is_told_to_run_a_trial_again_as_often_as_there_are_retries(tmp_path):
    once, twice, never = [failed()], [failed(), failed()], [failed(again=False)]
    executor = Scripted(t0=once, t1=twice, t2=never)
    tally = swept(tmp_path, [plan(tmp_path, trials(4))], executor)
    assert executor.answers == [
        ("0000", True), ("0001", True), ("0002", False), ("0003", False), ("0000", False), ("0001", False),
    ]  # fmt: skip
    assert len(executor.works) == 1  # the same workers, with the models they have
    assert attrs.astuple(tally) == (2, 0, 2, 0)
    attempts = {record["id"]: (record["attempt"], has_result(record)) for record in lines(tmp_path)}
    assert attempts == {"0000": (2, True), "0001": (2, False), "0002": (1, False), "0003": (1, True)}
    # the next run counts on, and has retries of its own
    executor = Scripted(t1=[failed(), failed(), failed()], t2=[])
    assert attrs.astuple(swept(tmp_path, [plan(tmp_path, trials(4))], executor, retries=2)) == (1, 2, 1, 0)
    assert [record["attempt"] for record in lines(tmp_path) if record["id"] == "0001"] == [1, 2, 3, 4, 5]
    assert [record["attempt"] for record in lines(tmp_path) if record["id"] == "0002"] == [1, 2]


def test_plans_run_one_after_the_other_with_their_own_work_and_heads(tmp_path):
    listed = trials(6)
    first = plan(tmp_path, listed[:4])
    second = plan(tmp_path, listed[2:], pause=2)  # two trials are in both
    second = attrs.evolve(second, heads={trial.id: partial(Record, id=trial.id, study="second") for trial in listed})
    executor = Scripted(t1=[failed()], t5=[failed()])
    swept(tmp_path, [first, second], executor, retries=0)
    first, second = (  # workers are told where answers are kept
        attrs.evolve(one, work=attrs.evolve(one.work, terms=attrs.evolve(one.work.terms, out=str(tmp_path))))
        for one in (first, second)
    )
    assert executor.works == [
        (first.work, ["0000", "0001", "0002", "0003"]),
        (second.work, ["0004", "0005"]),
    ]
    assert {record["id"]: record.get("study") for record in lines(tmp_path) if "error" in record} == {
        "0001": None, "0005": "second"
    }  # fmt: skip
    assert [trial.id for trial in read_plan(tmp_path)[1]] == [trial.id for trial in listed]
    assert swept(tmp_path, [first, second], Scripted(), retries=0).found == 4


def test_a_plan_with_nothing_left_is_not_given_to_the_executor(tmp_path):
    plans = [plan(tmp_path, trials(4)[:2]), plan(tmp_path, trials(4)[2:])]
    swept(tmp_path, plans[:1], Scripted())
    executor = Scripted()
    swept(tmp_path, plans, executor)
    assert [names for _, names in executor.works] == [["0002", "0003"]]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(count=st.integers(0, 13), parts=st.integers(1, 6))
def test_parts_have_every_trial_once_and_differ_by_one_at_most(count, parts):
    listed = trials(count) if count else []
    whole = [Plan("", plan(".", []).work, tuple(listed), {})]
    dealt = [numbered(whole, (part, parts)) for part in range(1, parts + 1)]
    assert sorted(trial.id for mine in dealt for trial in mine) == [trial.id for trial in listed]
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    assert [mine[0].id for mine in dealt if mine] == [trial.id for trial in listed[:parts]]


def test_parts_in_one_folder_make_what_one_sweep_makes(tmp_path):
    listed = [*trials(7), Trial(id="aa", label="no", model="a", benchmark="x", keep=9, refused="too many")]
    for part in ((1, 3), (2, 3), (3, 3), (2, 3)):
        tally = swept(tmp_path / "parts", [plan(tmp_path, listed)], Scripted(), part=part)
    assert attrs.astuple(tally) == (0, 2, 0, 1)  # the second part's own: trials 2 and 5, and the refused eighth
    swept(tmp_path / "whole", [plan(tmp_path, listed)], Scripted())
    parts, whole = (sorted(lines(tmp_path / name), key=lambda one: one["id"]) for name in ("parts", "whole"))
    assert parts == whole
    assert look(tmp_path / "parts").count("done") == 7


def test_a_full_disk_ends_it_in_one_sentence_and_keeps_what_is_stored(tmp_path, monkeypatch):
    class Full(Scripted):
        def run(self, work, listed, tell):
            super().run(work, listed[:2], tell)
            monkeypatch.setattr("headwise_lab.sweeps.running.write_progress", full)
            monkeypatch.setattr(Store, "add", full)
            super().run(work, listed[2:], tell)

    def full(*_):
        raise DataError("no space left")

    with pytest.raises(DataError, match="no space left"):
        swept(tmp_path, [plan(tmp_path, trials(4))], Full())
    monkeypatch.undo()
    assert [record["id"] for record in lines(tmp_path)] == ["0000", "0001"]
    assert swept(tmp_path, [plan(tmp_path, trials(4))], Scripted()).found == 2


def test_a_plan_has_no_trial_twice_and_one_that_prunes():
    first, second = trials(2)
    twin = attrs.evolve(first, label="another way to write it")
    made = plan_of("", plan(".", []).work, [(first, dict), (second, dict), (twin, dict)], ["a", "a"])
    assert made.trials == (first, second)
    assert made.remarks == ("a",)
    refused = [attrs.evolve(trial, refused="out of reach") for trial in (first, second)]
    unpruned = Trial(id="ee", label="unpruned", model="a", benchmark="x")
    full = attrs.evolve(unpruned, id="ef", case="full", case_group="full")
    with pytest.raises(BudgetError, match="out of reach"):
        check_any_left([Plan("", made.work, (*refused, unpruned, full), {})])
    check_any_left([Plan("", made.work, (refused[0], second), {})])
    check_any_left([Plan("", made.work, (unpruned,), {})])
    with pytest.raises(DataError, match="the sweep has no trial"):
        check_any_left([Plan("", made.work, (), {})])


def test_the_lower_perplexity_and_the_higher_score_stand_better():
    def scored(name, value):
        return Record(id="a", metric=Metric(name=name, value=value))

    assert standing(scored("points", 3.0)) > standing(scored("points", 2.0))
    assert standing(scored(LOWER_IS_BETTER, 3.0)) > standing(scored(LOWER_IS_BETTER, 4.0))
    assert standing(Record(id="a", error="x")) == float("-inf")


@pytest.mark.parametrize(("seconds", "noted"), [(0.0, 1), (1.0, 3), (9.0, 10)])
def test_behind_a_url_what_runs_is_noted_seldom_but_first_and_last_at_once(monkeypatch, seconds, noted):
    notes, clock = [], count(0.0, seconds)
    monkeypatch.setattr("headwise_lab.sweeps.running.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("headwise_lab.sweeps.running.write_progress", lambda _, told, part: notes.append(told))
    swept(place("memory://seldom/out"), [plan(".", trials(10))], Scripted())
    fsspec.filesystem("memory").store.clear()
    *during, last = notes
    assert len(during) == noted  # of 30 events, of 10 trials, a third of which leave nothing running
    assert during[0].running == ("0000",)
    assert all(note.running for note in during)
    assert (last.running, last.questions) == ((), 30)
