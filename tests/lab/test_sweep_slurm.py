"""Sweeps in Slurm jobs: with processes of this machine in their place, and with programs that play Slurm."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.lab import fake_slurm
from tests.lab.as_json import has_result, json_outcomes
from tests.lab.fake_sweep import alive, plan, result, swept, trials, value

from headwise import DataError, StrategyError
from headwise_lab.store.records import read_lines
from headwise_lab.sweeps import slurm, slurm_job
from headwise_lab.sweeps.executor import AttemptResult, Ended, Started, executor
from headwise_lab.sweeps.job_dir import JobDir, Pace, opened
from headwise_lab.sweeps.slurm import Slurm
from headwise_lab.sweeps.slurm_driver import Driver

ROOT = Path(__file__).parents[2]
QUICK = Pace(look=0.02, beat=0.1, silence=20.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Jobs find these tests, and nobody waits for a shared disk."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(slurm, "PACES", {"slurm": QUICK, "local": QUICK})
    monkeypatch.setattr("headwise_lab.sweeps.slurm_site.CHECK", 0.1)


def told(folder):
    return [record for _, record in read_lines(folder / "out" / "results.jsonl")[0]]


def pids(folder):
    return [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]


def check_whole(folder, listed):
    good = [record for record in told(folder) if has_result(record)]
    assert {record["id"]: record["metric"]["value"] for record in good} == {trial.id: value(trial) for trial in listed}
    assert len(good) == len(listed)
    for trial in listed:
        assert [row["score"] for row in json_outcomes(folder / "out", trial.id)] == [value(trial)] * 3


def check_nothing_left(folder):
    """No job folder, and no process, though Slurm ends jobs in its own time."""
    assert not (folder / "job_dir").exists()
    until = time.monotonic() + 300
    while any(map(alive, pids(folder))):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_jobs_keep_what_they_have_over_failures_and_those_that_die_are_replaced(tmp_path):
    listed = trials(9, t1="dies", t2="raises", t3="refuses", t6="nan")
    tally = swept(tmp_path, listed, executor=Slurm(workers=2, job_dir=tmp_path / "job_dir", cluster="local"))
    assert (tally.ran, tally.failed) == (7, 2)
    errors = [(record["id"], record["attempt"], record["error"]) for record in told(tmp_path) if "error" in record]
    assert [row[:2] for row in sorted(errors)] == [("0001", 1), ("0002", 1), ("0003", 1), ("0006", 1), ("0006", 2)]
    assert next(row[2] for row in errors if row[0] == "0001").startswith("WorkerDied: job ")
    assert ("0002", 1, "RuntimeError: out of memory") in errors
    assert 2 <= len(pids(tmp_path)) <= 3  # one for the job that died, if anything still waited then
    check_nothing_left(tmp_path)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Slurm, played by programs that come first in PATH."""
    programs = fake_slurm.install(tmp_path / "bin")
    (tmp_path / "slurm").mkdir()
    monkeypatch.setenv("SLURM_FAKE", str(tmp_path / "slurm"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "slurm"


def test_a_slurm_job_that_is_killed_costs_one_attempt_and_another_is_submitted(tmp_path, cluster):
    listed = trials(10, **{f"t{number}": "waits" for number in range(1, 10)})

    def kill_one():
        while len([*tmp_path.glob("waits-*")]) < 2 or not (tmp_path / "out" / "results.jsonl").exists():
            time.sleep(0.02)
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        until = time.monotonic() + 300
        while len(pids(tmp_path)) < 3 and time.monotonic() < until:  # until another has come
            time.sleep(0.02)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    text = f"slurm:partition=long,time=90,gres=gpu:1,account=us,mem=8,job_dir={tmp_path}/job_dir"
    tally = swept(tmp_path, listed, executor=executor(text, 2))
    killer.join()
    assert (tally.ran, tally.failed) == (10, 0)
    check_whole(tmp_path, listed)
    (error,) = [record["error"] for record in told(tmp_path) if "error" in record]
    assert error.startswith("WorkerDied: job 1_")
    assert "FAILED" in error
    first = (cluster / "script-1").read_text()
    for line in ("--array=0-1%2", "--partition=long", "--time=90", "--gres=gpu:1", "--account=us", "--mem=8GB"):
        assert f"#SBATCH {line}\n" in first
    assert len(list(cluster.glob("script-*"))) >= 2  # a job that comes when all is done may be followed by another
    assert len(pids(tmp_path)) >= 3
    check_nothing_left(tmp_path)


def test_ctrl_c_ends_all_jobs_and_clears_the_job_folder(tmp_path, cluster):
    def tell(event):
        if isinstance(event, Ended):
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        Slurm(workers=2, job_dir=tmp_path / "job_dir").run(plan(tmp_path, [], 20).work, trials(), tell)
    check_nothing_left(tmp_path)


def test_what_slurm_does_not_take_and_a_job_folder_that_cannot_be_are_one_sentence(tmp_path, cluster):
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: long' >&2\nexit 1\n")
    work = plan(tmp_path, []).work
    with pytest.raises(DataError, match="Slurm does not accept the jobs: sbatch: error: invalid partition: long"):
        Slurm(job_dir=tmp_path / "job_dir").run(work, trials(1), lambda _: False)
    check_nothing_left(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"the job folder .*file/job_dir cannot be used \(Not a directory\); give slurm:job_dir="
    ):
        Slurm(job_dir=tmp_path / "file" / "job_dir").run(work, trials(1), lambda _: False)


def test_options_become_what_submitit_calls_them(cluster):
    found = executor("slurm:cpus=4,gpus=2,time=30,qos=low,constraint=a100,mem=1.5", None)
    shared = {"name": "headwise", "timeout_min": 30, "gpus_per_node": 2, "cpus_per_task": 4, "mem_gb": 1.5}
    assert found.parameters("cpu") == {**shared, "slurm_qos": "low", "slurm_constraint": "a100"}
    assert executor("slurm", None).parameters("cuda")["gpus_per_node"] == 1
    assert "gpus_per_node" not in executor("slurm:gres=gpu:1", None).parameters("cuda")
    assert "gpus_per_node" not in executor("slurm", None).parameters("cpu")


@pytest.mark.parametrize(
    ("text", "workers", "sentence"),
    [
        ("slurm:partion=x", None, "has no option 'partion'; did you mean partition"),
        ("slurm:time=long", None, "'long' is not a whole number"),
        ("slurm:cluster=here", None, "cluster=here is not one of slurm, local"),
        ("slurm", 0, "0 workers cannot run anything; give 1 or more"),
    ],
)
def test_options_that_are_unknown_or_no_good_are_one_sentence(cluster, text, workers, sentence):
    with pytest.raises(StrategyError, match=sentence):
        executor(text, workers)


def test_without_sbatch_or_submitit_there_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StrategyError, match="there is no sbatch here"):
        executor("slurm", None)
    monkeypatch.setattr("headwise_lab.sweeps.executor.find_spec", lambda _: None)
    with pytest.raises(StrategyError, match=r'submitit is not installed; pip install "headwise\[slurm\]"'):
        executor("slurm", None)


@pytest.fixture
def job_dir(tmp_path):
    listed = trials(40)
    groups = list(dict.fromkeys(trial.group for trial in listed))
    with opened(tmp_path / "job_dir", plan(tmp_path, []).work, groups, QUICK) as found:
        for number, trial in enumerate(listed):
            found.add(f"{groups.index(trial.group):05d}-{number:06d}", trial)
        yield found


def test_of_many_jobs_only_one_can_claim_a_trial(job_dir):
    groups, found = job_dir.content()[1], []

    def job(name):
        while claimed := job_dir.claim(name, None, groups):
            found.append((name, *claimed))

    threads = [threading.Thread(target=job, args=(f"job{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trial.id for _, _, trial in found) == [trial.id for trial in trials(40)]
    assert sorted((job, name) for job, name, _ in found) == sorted(job_dir.claims())


def test_a_job_that_slurm_starts_once_more_owns_up_and_goes_on(job_dir, monkeypatch):
    monkeypatch.setattr(slurm_job, "_live", lambda *_: None)
    monkeypatch.setattr(slurm_job.signal, "signal", lambda *_: None)
    name, lost = job_dir.claim("job1", None, job_dir.content()[1])
    settling = threading.Thread(target=_settle_all, args=(job_dir, found := {}), daemon=True)
    settling.start()
    slurm_job.serve(str(job_dir.folder), "job1")
    assert job_dir.has_left("job1")
    settling.join()
    assert found.pop(name).error == "WorkerDied: Slurm ended the job in the middle of the trial"
    assert {o.record["id"] for o in found.values()} == {trial.id for trial in trials(40)} - {lost.id}


def _settle_all(job_dir, found):
    while not job_dir.has_left("job1"):
        for job, name, outcome in [*job_dir.outcomes()]:
            found[name] = outcome
            job_dir.settle(job, name)
        time.sleep(0.01)


class Site:
    """Where each look at the jobs is one step of a story, which may act as a job."""

    here = True

    def __init__(self, *story):
        self._story, self.submitted, self.ended = iter(story), [], []

    def submit(self, names):
        self.submitted += names
        return names

    def over(self, jobs):
        return [*(next(self._story)(*jobs) or [])] if jobs else []

    def last_words(self, job):
        return f"WorkerDied: {job}"

    def end(self, jobs, patience):
        self.ended += jobs


def told_by(folder, listed, site, pace=QUICK, jobs=1, again=lambda _: False):
    """What a driver tells of trials, and which jobs it ends at last; ``Site.job_dir`` is the story's job folder."""
    heard = []

    def tell(event):
        heard.append((type(event).__name__, event.id, getattr(getattr(event, "result", None), "error", None)))
        return isinstance(event, Ended) and again(event)

    groups = list(dict.fromkeys(trial.group for trial in listed))
    with opened(folder / "job_dir", plan(folder, []).work, groups, pace) as site.job_dir:
        site.claim = lambda job: site.job_dir.claim(job, None, groups)
        driver = Driver(site.job_dir, site, listed, tell, pace)
        try:
            driver.run(jobs)
        finally:
            driver.close()
    return heard


def test_a_job_that_ends_before_it_begins_costs_an_attempt_so_that_it_cannot_go_on_forever(tmp_path):
    (trial,) = trials(1)
    site = Site(lambda *jobs: jobs, lambda *jobs: jobs)
    heard = told_by(tmp_path, [trial], site, again=lambda event: event.result.error == "WorkerDied: job1")
    died = [("Ended", trial.id, "WorkerDied: job1"), ("Ended", trial.id, "WorkerDied: job2")]
    assert heard == [("Started", trial.id, None), died[0], ("Started", trial.id, None), died[1]]
    assert site.submitted == ["job1", "job2"]


def test_an_outcome_that_comes_after_its_trial_was_given_up_is_dropped(tmp_path):
    (trial,) = trials(1)
    record, outcomes = result(trial)

    def dies(job):
        site.first = site.claim(job)[0]
        return [job]

    def comes_late(job):
        site.job_dir.finish("job1", site.first, AttemptResult(record=record, outcomes=outcomes))
        site.job_dir.finish(job, site.claim(job)[0], AttemptResult(record=record, outcomes=outcomes))

    site = Site(dies, comes_late, lambda *_: [])
    heard = told_by(tmp_path, [trial], site, again=lambda event: event.result.error is not None)
    assert [row for row in heard if row[0] == "Ended"] == [
        ("Ended", trial.id, "WorkerDied: job1"),
        ("Ended", trial.id, None),
    ]
    assert len([row for row in heard if row[0] == Started.__name__]) == 2


def test_a_job_without_signs_of_life_is_given_up_and_ended(tmp_path):
    (trial,) = trials(1)

    def falls_silent(job):
        site.job_dir.beat(job)
        site.claim(job)

    site = Site(falls_silent, *[lambda *_: time.sleep(0.05)] * 10)
    heard = told_by(tmp_path, [trial], site, pace=Pace(look=0.01, beat=0.1, silence=0.2))
    assert heard == [("Started", trial.id, None), ("Ended", trial.id, "WorkerDied: job1")]
    assert site.ended == ["job1"]


def test_jobs_are_told_to_stop_by_a_sign_and_end_by_themselves(job_dir, monkeypatch):
    ends = []
    monkeypatch.setattr(slurm_job.os, "_exit", ends.append)
    job_dir.beat("driver", "stop")
    slurm_job._live(job_dir, "job1", 0.01, 60.0)
    job_dir.beat("driver")
    slurm_job._live(job_dir, "job1", 0.01, 0.05)  # no new sign for that long
    assert ends == [0, 0]
    assert job_dir.sign("job1")
    assert JobDir(job_dir.folder).sign("job2") is None
