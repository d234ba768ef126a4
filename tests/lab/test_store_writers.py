"""Many processes that write one store at once, some of which are killed: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from pathlib import Path
from random import Random
from threading import Thread

import pytest
from tests.lab import fake_writer
from tests.lab.as_json import add_json, json_outcomes

from headwise_lab.store.local_store import LOCK
from headwise_lab.store.lock import held
from headwise_lab.store.output_folder import Store

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["headwise_lab.store.local_store", "headwise_lab.store.output_folder", "pyarrow.parquet"]
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The processes find ``tests`` also where pytest was not started as a module."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def writer(folder: Path, name: str, count: int):
    process = PROCESSES.Process(target=fake_writer.write, args=(folder, name, count))
    process.start()
    return process


def acknowledged(folder: Path) -> list[str]:
    return [line for path in folder.parent.glob("*.acknowledged") for line in path.read_text().splitlines()]


def checked(folder: Path) -> Counter:
    """Ids of all lines, every one of which must be whole."""
    content = (folder / "results.jsonl").read_bytes()
    assert content.endswith(b"\n")
    return Counter(json.loads(line)["id"] for line in content.splitlines())


def test_what_several_processes_write_at_once_is_there_once(tmp_path):
    folder = tmp_path / "out"
    running = [writer(folder, name, 25) for name in "abc"]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0, 0]
    expected = {f"{name}-{number}": 1 for name in "abc" for number in range(25)}
    assert expected == checked(folder)
    assert sorted(expected) == sorted(acknowledged(folder))
    assert Store.open(folder, "demo").warnings == ()


def test_what_was_acknowledged_survives_writers_that_are_killed(tmp_path):
    folder, draw = tmp_path / "out", Random(11)
    steady = writer(folder, "steady", 10**6)
    for number in range(6):
        victim, path = writer(folder, f"v{number}", 10**6), tmp_path / f"v{number}.acknowledged"
        while not (path.exists() and path.stat().st_size):
            assert victim.is_alive()
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.08))
        victim.kill()
        victim.join()
    steady.kill()
    steady.join()
    store = Store.open(folder, "demo")  # repairs what the last one left
    found = checked(folder)
    told = acknowledged(folder)
    assert set(told) <= set(found)
    assert set(found.values()) == {1}
    assert len(found) - len(told) <= 7  # each may have been killed between a record and its note
    for identity in told:
        if int(identity.rpartition("-")[2]) % 5 == 0:
            assert store.done(identity)
            assert len(json_outcomes(folder, identity)) == 1


def test_opening_waits_for_a_writer_and_does_not_cut_its_line_off(tmp_path):
    store = Store.open(tmp_path, "demo")
    add_json(store, {"id": "aa"})
    path = tmp_path / "results.jsonl"
    opened = []
    opening = Thread(target=lambda: opened.append(Store.open(tmp_path, "demo")))
    with held(tmp_path / LOCK):
        with path.open("ab") as stream:
            stream.write(b'{"id": "bb", ')
        opening.start()
        opening.join(timeout=0.2)
        assert opening.is_alive()
        with path.open("ab") as stream:
            stream.write(b'"n": 0}\n')
    opening.join()
    assert list(opened[0].records) == ["aa", "bb"]
    assert opened[0].warnings == ()
