"""Sweeps that are killed, fail and go on: the final records are those of one that nothing happened to."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest
from tests.lab import fake_sweep
from tests.lab.as_json import has_result, json_outcomes
from tests.lab.fake_sweep import alive, swept, trials, value

from headwise import DataError, StrategyError
from headwise.cli import main
from headwise_lab.benchmarks import benchmark
from headwise_lab.store.records import read_lines
from headwise_lab.sweeps.executor import executor
from headwise_lab.sweeps.folder import is_locked, locked
from headwise_lab.sweeps.local import Local, cores, places

PATIENCE = 300.0


def lines(folder):
    path = folder / "out" / "results.jsonl"
    return [record for _, record in read_lines(path)[0]] if path.exists() else []


def results(folder):
    """Identity -> figure of every record that has one; fails where a trial has two."""
    found = [record for record in lines(folder) if has_result(record)]
    assert max(Counter(record["id"] for record in found).values(), default=0) <= 1
    return {record["id"]: record["metric"]["value"] for record in found}


def failures(folder):
    return [(record["id"], record["attempt"], record["error"]) for record in lines(folder) if "error" in record]


def wanted(listed):
    return {trial.id: value(trial) for trial in listed}


def check_whole(folder, listed):
    """All records and outcomes are there, once."""
    assert results(folder) == wanted(listed)
    for trial in listed:
        assert [row["score"] for row in json_outcomes(folder / "out", trial.id)] == [value(trial)] * 3


def workers(folder):
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def until(true, patience=PATIENCE):
    """Wait for something to be so."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def started(folder, count=2):
    """A sweep of its own process and process group."""
    here = Path(fake_sweep.__file__)
    return subprocess.Popen(
        [sys.executable, str(here), str(folder), str(count)], stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Worker processes find the fake runner by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


@pytest.mark.parametrize("count", [0, 2])
def test_a_sweep_runs_every_trial_once_and_again_runs_none(tmp_path, count):
    listed = trials()
    first = swept(tmp_path, listed, workers=count)
    assert (first.ran, first.found, first.failed, first.refused) == (12, 0, 0, 0)
    check_whole(tmp_path, listed)
    assert {record["attempt"] for record in lines(tmp_path)} == {1}
    assert len(set(workers(tmp_path))) == max(1, count)
    second = swept(tmp_path, listed, workers=count)
    assert (second.ran, second.found) == (0, 12)
    check_whole(tmp_path, listed)


def test_what_befalls_a_trial_is_recorded_and_tried_again_where_that_may_help(tmp_path):
    names = {"t1": "dies", "t2": "raises", "t3": "refuses", "t4": "lacks", "t5": "exits", "t6": "nan", "t7": "changed"}
    listed = trials(9, **names)
    counts = swept(tmp_path, listed, workers=2)
    assert (counts.ran, counts.failed, counts.refused) == (5, 3, 1)
    assert results(tmp_path) == wanted([listed[number] for number in (0, 1, 2, 5, 8)])
    told = failures(tmp_path)
    assert ("0001", 1, "WorkerDied: the worker process was ended by SIGKILL; if nobody killed it, the machine was"
            " out of memory") in told  # fmt: skip
    assert ("0002", 1, "RuntimeError: out of memory") in told
    assert [row for row in told if row[0] == "0003"] == [("0003", 1, "HeadwiseError: heads=9 is too many")]
    assert ("0005", 1, "WorkerDied: the worker process ended with status 3 in the middle of the trial") in told
    assert [row[1] for row in told if row[0] == "0006"] == [1, 2]
    assert "Out of range float values are not JSON compliant" in next(row[2] for row in told if row[0] == "0006")
    (changed,) = [row[2] for row in told if row[0] == "0007"]
    assert "have changed since the sweep was planned: trial 0007 is now ff" in changed
    assert [record["refused"] for record in lines(tmp_path) if "refused" in record] == ["the model has no CLIP tower"]
    attempts = {record["id"]: record["attempt"] for record in lines(tmp_path) if has_result(record)}
    assert attempts == {"0000": 1, "0001": 2, "0002": 2, "0005": 2, "0008": 1}


def test_a_trial_that_kills_every_worker_costs_itself_alone_and_counts_its_attempts(tmp_path):
    listed = trials(5, t0="always-dies")
    for run, attempts in ((1, [1, 2]), (2, [1, 2, 3, 4])):
        counts = swept(tmp_path, listed, workers=1)
        assert (counts.ran, counts.found, counts.failed) == (4 if run == 1 else 0, 0 if run == 1 else 4, 1)
        assert [row[1] for row in failures(tmp_path)] == attempts
    assert results(tmp_path) == wanted(listed[1:])


@pytest.mark.parametrize("count", [0, 1])
def test_what_is_run_once_more_waits_behind_its_group_for_the_worker_that_has_the_model(tmp_path, count):
    listed = trials(8, t0="raises", t2="raises")  # group a, x is trials 0 and 2
    assert swept(tmp_path, listed, workers=count).ran == 8
    assert len(workers(tmp_path)) == 1
    assert [int(record["id"], 16) for record in lines(tmp_path)][:4] == [0, 2, 0, 2]
    check_whole(tmp_path, listed)


def test_a_worker_that_dies_is_replaced_and_its_trial_run_once_more(tmp_path):
    listed = trials(4, t0="dies", t3="exits")
    assert swept(tmp_path, listed, workers=1).ran == 4
    assert len(workers(tmp_path)) == 3
    assert sorted(row[:2] for row in failures(tmp_path)) == [("0000", 1), ("0003", 1)]
    check_whole(tmp_path, listed)


def test_without_retries_a_failure_is_final(tmp_path):
    counts = swept(tmp_path, trials(3, t1="raises"), retries=0)
    assert (counts.ran, counts.failed) == (2, 1)
    assert swept(tmp_path, trials(3, t1="raises"), retries=0).ran == 1


def test_a_runner_that_cannot_be_had_is_the_failure_of_its_trials(tmp_path, monkeypatch):
    monkeypatch.setattr(fake_sweep.FakeRunner, "__init__", lambda *_: 1 / 0)
    assert swept(tmp_path, trials(2), retries=0).failed == 2
    assert {row[2] for row in failures(tmp_path)} == {"ZeroDivisionError: division by zero"}


def test_a_killed_sweep_leaves_no_process_and_goes_on_to_the_records_of_an_uninterrupted_one(tmp_path):
    draw = random.Random(5)
    listed = trials()
    for _ in range(3):
        before = len(results(tmp_path))
        wait_for = min(before + draw.randint(0, 3), 11)
        process = started(tmp_path)
        until(lambda goal=wait_for: len(results(tmp_path)) >= goal and len(workers(tmp_path)) > 0)
        time.sleep(draw.random() * 0.03)
        process.kill()
        process.communicate()
        until(lambda: not any(map(alive, workers(tmp_path))))
        assert not is_locked(tmp_path / "out")
    found = len(results(tmp_path))
    counts = swept(tmp_path, listed)
    assert (counts.found, counts.ran) == (found, 12 - found)
    check_whole(tmp_path, listed)


def test_a_worker_that_is_killed_from_outside_costs_one_attempt(tmp_path):
    process = started(tmp_path)
    until(lambda: len(workers(tmp_path)) == 2 and len(results(tmp_path)) >= 1)
    os.kill(workers(tmp_path)[0], signal.SIGKILL)
    process.communicate()
    assert process.returncode == 0
    check_whole(tmp_path, trials())
    assert len(workers(tmp_path)) > 2  # another took its place
    assert len(failures(tmp_path)) == 1
    assert "SIGKILL" in failures(tmp_path)[0][2]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_finished_trials_and_no_process(tmp_path, how):
    process = started(tmp_path)
    until(lambda: len(results(tmp_path)) >= 1)
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: to everybody
    else:
        process.send_signal(how)
    _, told = process.communicate()
    assert b"run the same line again to go on" in told
    assert not any(map(alive, workers(tmp_path)))
    found = len(results(tmp_path))
    assert 1 <= found < 12
    assert failures(tmp_path) == []
    assert swept(tmp_path, trials()).found == found
    check_whole(tmp_path, trials())


def test_a_copy_of_a_half_written_store_goes_on(tmp_path):
    draw = random.Random(7)
    listed = trials()
    swept(tmp_path, listed)
    content = (tmp_path / "out" / "results.jsonl").read_bytes()
    for number in range(6):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "out", copy / "out")
        (copy / "out" / "results.jsonl").write_bytes(content[: draw.randrange(len(content))])
        lost = copy / "out" / "outcomes" / f"{draw.choice(listed).id}.parquet"
        lost.write_bytes(lost.read_bytes()[: draw.randrange(400)])
        swept(copy, listed)
        found = {record["id"]: record["metric"]["value"] for record in lines(copy)}
        assert found == wanted(listed)
        for trial in listed:
            assert len(json_outcomes(copy / "out", trial.id)) == 3


def test_refused_trials_are_recorded_once(tmp_path):
    listed = [
        *trials(2),
        *[fake_sweep.Trial(id="aa", label="no", model="a", benchmark="x", keep=9, refused="too many")],
    ]
    for _ in range(2):
        assert swept(tmp_path, listed).refused == 1
    (record,) = [record for record in lines(tmp_path) if "refused" in record]
    assert (record["id"], record["refused"], record["budget"]) == ("aa", "too many", {"given": "keep=9"})


def test_two_sweeps_cannot_run_in_one_folder(tmp_path):
    with locked(tmp_path / "out"):
        assert is_locked(tmp_path / "out")
        with pytest.raises(DataError, match="another sweep is running in"):
            swept(tmp_path, trials(1))
    assert not is_locked(tmp_path / "out")
    assert swept(tmp_path, trials(1)).ran == 1


def test_a_full_disk_ends_the_sweep_in_one_sentence_and_leaves_no_process(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headwise_lab.store.local_store.append", full)
    with pytest.raises(DataError, match="No space left on device"):
        swept(tmp_path, trials(4), workers=2)
    assert not any(map(alive, workers(tmp_path)))


def test_workers_share_gpus_in_turns_and_cores_evenly():
    gpus = {"CUDA_VISIBLE_DEVICES": "4,GPU-a"}
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(None, "cuda", gpus)] == ["4", "GPU-a"]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(3, "cuda", gpus)] == ["4", "GPU-a", "4"]
    assert places(2, "cuda:1", gpus) == [{"OMP_NUM_THREADS": str(max(1, cores() // 2))}] * 2
    assert places(None, "cpu", {"OMP_NUM_THREADS": "1"}) == [{}]
    assert places(cores() + 1, "cpu", {})[0] == {"OMP_NUM_THREADS": "1"}


def test_executors_are_found_by_name():
    assert executor("local", 3) == Local(3)
    with pytest.raises(StrategyError, match="unknown executor 'locall'; did you mean local"):
        executor("locall", None)


TINY = """
title = "Tiny"
models = ["{model}"]
benchmarks = ["shapes-gqa"]
limit = 4
timed_batches = 1
data = "questions"
[budgets]
keep = [16, 400]
[[grids]]
head_scoring = ["sparsity"]
heads = [4]
"""


@pytest.fixture
def tiny_file(tmp_path, tiny_folder):
    benchmark("shapes-gqa").prepare(tmp_path / "questions", 8, 0)
    (tmp_path / "tiny.toml").write_text(TINY.format(model=tiny_folder))
    return tmp_path / "tiny.toml"


def told(out):
    return {record["id"]: record for _, record in read_lines(out / "results.jsonl")[0]}


@pytest.fixture
def tallies(monkeypatch):
    """How sweeps ended, in place of reports, which take longer than the sweeps here."""
    found = []
    monkeypatch.setattr("headwise_lab.commands.ending.finish", lambda _, tally, *__: found.append(attrs.astuple(tally)))
    return found


def test_a_real_sweep_goes_on_where_its_store_was_cut_off_with_equal_metrics(tiny_file, tmp_path, tallies, monkeypatch):
    monkeypatch.setattr("headwise_lab.trial.answering.NEW_TOKENS", 2)
    monkeypatch.setattr("headwise_lab.cost.timing.STEPS", 2)
    out = tmp_path / "out"
    line = ["sweep", str(tiny_file), "--out", str(out), "--workers", "0"]
    assert main(line) == 0
    first = told(out)
    assert [has_result(record) for record in first.values()].count(True) == 4
    assert {record["refused"] for record in first.values() if not has_result(record)} == {
        "keep=400 is more than the 144 visual tokens of tiny; give at most 144"
    }
    content = (out / "results.jsonl").read_text().splitlines(keepends=True)
    kept = [text for text in content if has_result(json.loads(text))][:-1]
    (out / "results.jsonl").write_text("".join(kept) + content[-1][:30])
    assert main(line) == 0
    assert tallies == [(4, 0, 0, 3), (1, 3, 0, 3)]  # run, there already, failed, refused
    assert figures(out) == {name: figure(record) for name, record in first.items()}


def figure(record):
    """What two runs of one trial have in common."""
    return [record.get(key) for key in ("metric", "metrics", "overlap", "heads", "attention", "budget", "refused")]


def figures(out):
    return {name: figure(record) for name, record in told(out).items()}


@pytest.mark.slow
def test_one_process_and_two_workers_give_the_same_metrics_and_a_report(tiny_file, tmp_path):
    for count in ("0", "2"):
        assert main(["sweep", str(tiny_file), "--out", str(tmp_path / count), "--workers", count]) == 0
        assert (tmp_path / count / "report.html").is_file()
    assert figures(tmp_path / "0") == figures(tmp_path / "2")
    assert len(figures(tmp_path / "0")) == 7
