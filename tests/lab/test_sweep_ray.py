"""Sweeps on a Ray cluster: the same records as on this machine, whatever dies."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.lab.as_json import has_result, json_outcomes
from tests.lab.fake_ray import FakeRay
from tests.lab.fake_sweep import plan, swept, trials, value

from headwise import DataError, StrategyError
from headwise.cli import main
from headwise_lab.store.records import read_lines
from headwise_lab.sweeps.executor import Advanced, executor
from headwise_lab.sweeps.ray_cluster import RayCluster, cause, share

ROOT = Path(__file__).parents[2]

SMALL = """
title = "Small"
models = ["demo-llava"]
benchmarks = ["shapes-gqa", "shapes-pope"]
limit = 8
timed_batches = 1
unpruned = true
[budgets]
keep = [16]
[[grids]]
head_scoring = ["sparsity", "sum"]
heads = [4]
"""


def test_workers_are_one_per_gpu_or_machine_and_share_the_cores_of_a_cluster():
    assert share([{"CPU": 8, "GPU": 4}, {"CPU": 8, "GPU": 2}], None, "cuda", None) == (
        6,
        {"num_gpus": 1, "num_cpus": 1},
    )
    assert share([{"CPU": 8}, {"CPU": 8}], None, "cpu", None) == (2, {"num_cpus": 8})
    assert share([{"CPU": 8}, {"CPU": 8}, {}], 3, "cpu", None) == (3, {"num_cpus": 4})
    assert share([{"CPU": 2}, {"CPU": 8}], 2, "cpu", None) == (2, {"num_cpus": 4})  # both on the larger one
    assert share([{"CPU": 2}], 5, "cpu", None) == (5, {"num_cpus": 1})
    assert share([{"CPU": 2}], 1, "cpu", 3) == (1, {"num_cpus": 3})


def test_a_cluster_without_gpus_and_one_gpu_of_one_machine_are_refused_in_a_sentence():
    with pytest.raises(DataError, match="the Ray cluster has no GPU; give --device cpu"):
        share([{"CPU": 2}], 1, "cuda", None)
    with pytest.raises(DataError, match="but Ray assigns the GPUs; give device cuda"):
        share([{"CPU": 2, "GPU": 2}], 1, "cuda:1", None)


def test_options_are_read_from_the_text_and_unknown_ones_refused(monkeypatch):
    monkeypatch.setattr("headwise_lab.sweeps.executor.find_spec", lambda _: True)
    assert executor("ray:cpus=2,address=auto", 3) == RayCluster(workers=3, cpus=2, address="auto")
    with pytest.raises(StrategyError, match=r"executor 'ray' \(headwise .*\) has no option 'cpu'; did you mean cpus"):
        executor("ray:cpu=2", None)
    with pytest.raises(StrategyError, match="'two' is not a whole number"):
        executor("ray:cpus=two", None)
    with pytest.raises(StrategyError, match="0 workers cannot run anything; give 1 or more"):
        executor("ray", 0)


def test_without_ray_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr("headwise_lab.sweeps.executor.find_spec", lambda _: None)
    with pytest.raises(StrategyError, match=r'ray is not installed; pip install "headwise\[ray\]"'):
        executor("ray", None)


def test_what_ray_says_about_a_death_is_one_line():
    text = "The actor died.\n\tclass_name: A\nThe actor is dead because its node died. Some common causes include: x"
    assert cause(RuntimeError(text)) == "WorkerDied: The actor is dead because its node died."
    assert cause(RuntimeError()) == "WorkerDied: RuntimeError"


@pytest.mark.parametrize("room", [1, 2])
def test_an_actor_that_dies_costs_one_attempt_and_one_that_finds_no_room_holds_no_trial(tmp_path, monkeypatch, room):
    ray = FakeRay(room)
    monkeypatch.setattr("headwise_lab.sweeps.ray_joining.joined", ray.joined)
    monkeypatch.setattr("headwise_lab.sweeps.ray_actor.PAUSE", 0.05)
    monkeypatch.setattr("headwise_lab.sweeps.executor.find_spec", lambda _: True)
    listed = trials(12, t1="ends-actor", t4="raises", t7="refuses", t8="nan")
    tally = swept(tmp_path, listed, executor=RayCluster())
    assert (tally.ran, tally.failed) == (10, 2)
    records = told(tmp_path / "out")
    errors = [(record["id"], record["attempt"], record["error"]) for record in records if "error" in record]
    assert ("0001", 1, "WorkerDied: Its process has ended.") in errors
    assert sorted(row[:2] for row in errors) == [("0001", 1), ("0004", 1), ("0007", 1), ("0008", 1), ("0008", 2)]
    good = [record for record in records if has_result(record)]
    assert {record["id"] for record in good} == {trial.id for trial in listed} - {"0007", "0008"}
    assert len(good) == 10
    assert len(ray.actors) == 3


@pytest.mark.parametrize(("grace", "attempts"), [(60, []), (0, [("0000", 1)])])
def test_an_actor_that_never_begins_costs_an_attempt_only_where_none_has_begun_for_long(
    tmp_path, monkeypatch, grace, attempts
):
    ray = FakeRay(1, stillborn=(1,))
    monkeypatch.setattr("headwise_lab.sweeps.ray_joining.joined", ray.joined)
    monkeypatch.setattr("headwise_lab.sweeps.ray_cluster.GRACE", grace)
    monkeypatch.setattr("headwise_lab.sweeps.ray_cluster.PAUSE", 0)
    monkeypatch.setattr("headwise_lab.sweeps.executor.find_spec", lambda _: True)
    tally = swept(tmp_path, trials(3), executor=RayCluster(workers=1))
    assert (tally.ran, tally.failed) == (3, 0)
    failed = [(record["id"], record["attempt"]) for record in told(tmp_path / "out") if "error" in record]
    assert failed == attempts
    assert len(ray.actors) == 2


def test_progress_comes_while_a_trial_runs_and_counts_every_question_once(tmp_path, monkeypatch):
    monkeypatch.setattr("headwise_lab.sweeps.ray_joining.joined", FakeRay(2).joined)
    monkeypatch.setattr("headwise_lab.sweeps.ray_actor.PAUSE", 0.05)
    monkeypatch.setattr("headwise_lab.sweeps.executor.find_spec", lambda _: True)
    heard = []

    def tell(event):
        heard.append(event)
        return False

    RayCluster(workers=2).run(plan(tmp_path, [], pause=20).work, trials(4), tell)
    answered = Counter()
    for event in heard:
        answered[event.id] += event.questions if isinstance(event, Advanced) else 0
    assert answered == {trial.id: 3 for trial in trials(4)}
    assert sum(isinstance(event, Advanced) for event in heard) > 4  # not only when they end


def test_a_cluster_without_room_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("headwise_lab.sweeps.ray_joining.joined", FakeRay(0).joined)
    monkeypatch.setattr("headwise_lab.sweeps.ray_cluster.PATIENCE", 0.1)
    monkeypatch.setattr("headwise_lab.sweeps.executor.find_spec", lambda _: True)
    with pytest.raises(DataError, match=r"no machine of the Ray cluster has room .* asks for \{'num_cpus': 1\}"):
        RayCluster(workers=1).run(plan(tmp_path, []).work, trials(2), lambda _: False)


def told(folder):
    """A record per attempt."""
    return [record for _, record in read_lines(folder / "results.jsonl")[0]]


COUNTED = ("flops_visual", "flops_total", "text_tokens", "batch", "kv_bytes")


def strip(record):
    """A record without what depends on the clock."""
    cost = {key: record["cost"][key] for key in COUNTED}
    return {key: value for key, value in record.items() if key not in {"timing", "created"}} | {"cost": cost}


@pytest.mark.slow
def test_local_and_ray_workers_give_the_same_records_and_outcomes(tmp_path, monkeypatch):
    monkeypatch.setattr("headwise_lab.commands.ending.finish", lambda *_, **__: None)  # reports take longer
    (tmp_path / "small.toml").write_text(SMALL)
    for name in ("local", "ray"):
        line = ["sweep", str(tmp_path / "small.toml"), "--out", str(tmp_path / name), "--workers", "2"]
        assert main([*line, "--executor", name]) == 0
    local, ray = (
        {record["id"]: record for record in told(tmp_path / name) if has_result(record)} for name in ("local", "ray")
    )
    assert len(local) == 10  # both benchmarks: unpruned, all heads, random ones, two scorings
    assert {name: strip(record) for name, record in ray.items()} == {name: strip(r) for name, r in local.items()}
    for name in local:
        assert json_outcomes(tmp_path / "ray", name) == json_outcomes(tmp_path / "local", name)


@pytest.fixture
def cluster(monkeypatch):
    """A head without CPUs and two machines with two each, which find these tests."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    found.pair = [found.add_node(num_cpus=2) for _ in range(2)]
    found.wait_for_nodes()
    yield found
    found.shutdown()


def kill_a_node_when(ready, cluster):
    def run():
        while not ready():
            time.sleep(0.02)
        cluster.remove_node(cluster.pair[1], allow_graceful=False)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [1, 2], ids=["another-takes-over", "the-other-goes-on-alone"])
def test_a_machine_that_is_killed_costs_one_attempt_and_no_trial_is_lost_or_doubled(cluster, tmp_path, cpus, capfd):
    listed = trials(60 if cpus == 1 else 16)  # Ray may ask the dead machine first, for as long as it holds it alive

    def going():
        path = tmp_path / "out" / "results.jsonl"
        return path.exists() and path.read_text().count("\n") >= 4

    killer = kill_a_node_when(going, cluster)
    tally = swept(tmp_path, listed, pause=200, executor=RayCluster(workers=2, cpus=cpus, address=cluster.address))
    killer.join()
    assert (tally.ran, tally.failed) == (len(listed), 0)
    found = told(tmp_path / "out")
    good = [record for record in found if has_result(record)]
    assert {record["id"]: record["metric"]["value"] for record in good} == {trial.id: value(trial) for trial in listed}
    assert len(good) == len(listed)
    bad = [record for record in found if not has_result(record)]
    assert len(bad) == 1
    assert all(record["error"].startswith("WorkerDied: ") for record in bad)
    assert len(list(tmp_path.glob("pid-*"))) == (3 if cpus == 1 else 2)  # a third worker where there was room
    assert "raylet" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_a_cluster_of_our_own_runs_what_dies_and_what_fails_again_quietly(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    listed = trials(9, t1="dies", t2="raises", t3="refuses", t5="exits", t7="always-dies")
    tally = swept(tmp_path, listed, executor=RayCluster(workers=2))
    assert (tally.ran, tally.failed) == (7, 2)
    found = told(tmp_path / "out")
    errors = {(record["id"], record["error"].partition(":")[0]) for record in found if "error" in record}
    assert errors == {
        ("0001", "WorkerDied"), ("0002", "RuntimeError"), ("0003", "HeadwiseError"), ("0005", "WorkerDied"),
        ("0007", "WorkerDied"),
    }  # fmt: skip
    assert sum("error" in record for record in found) == 6
    assert all("\n" not in json.dumps(record.get("error", "")) for record in found)
    assert "raylet" not in "".join(capfd.readouterr())
