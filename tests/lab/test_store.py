"""The output folder: what is written is whole, what is foreign is left alone."""

from __future__ import annotations

import json
import os

import pytest

from headwise import DataError
from headwise_lab.records import read_outcomes
from headwise_lab.store import MANIFEST, Store


def record(identity: str, n: int = 2, **more):
    return {"id": identity, "n": n, **more}


def outcomes(n: int = 2):
    return [{"id": str(i), "score": 1.0, "prediction": "ß"} for i in range(n)]


def reopened(folder, kind="demo"):
    return Store.open(folder, kind)


def test_a_finished_trial_is_done_once_the_folder_is_opened_again(tmp_path):
    store = Store.open(tmp_path / "deep" / "out", "demo")
    assert not store.done("aa")
    store.add(record("aa"), outcomes())
    again = reopened(tmp_path / "deep" / "out")
    assert again.done("aa")
    assert not again.done("bb")
    assert read_outcomes(tmp_path / "deep" / "out", "aa") == outcomes()


def test_a_record_without_all_its_outcomes_is_not_done(tmp_path):
    store = Store.open(tmp_path, "demo")
    store.add(record("lost"), outcomes())
    store.add(record("short"), outcomes())
    store.add(record("failed", error="ValueError: no"))
    (tmp_path / "outcomes" / "lost.jsonl").unlink()
    (tmp_path / "outcomes" / "short.jsonl").write_text(json.dumps(outcomes()[0]) + "\n")
    again = reopened(tmp_path)
    assert [again.done(name) for name in ("lost", "short", "failed")] == [False, False, False]


def test_of_two_records_with_one_id_the_last_counts(tmp_path):
    store = Store.open(tmp_path, "demo")
    store.add(record("aa", error="RuntimeError: once"))
    store.add(record("aa"), outcomes())
    assert reopened(tmp_path).done("aa")


@pytest.mark.parametrize("torn", ['{"id": "bb", "n"', "{", '{"id": "ß'.encode()[:-1]])
def test_a_torn_last_line_is_dropped_and_the_next_record_stands_alone(tmp_path, torn):
    store = Store.open(tmp_path, "demo")
    store.add(record("aa"), outcomes())
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(torn if isinstance(torn, bytes) else torn.encode())
    again = reopened(tmp_path)
    assert len(again.warnings) == 1
    assert "torn" in again.warnings[0]
    again.add(record("cc"), outcomes())
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["aa", "cc"]
    assert reopened(tmp_path).warnings == ()


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    Store.open(tmp_path, "demo").add(record("aa"), outcomes())
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = reopened(tmp_path)
    assert again.done("aa")
    assert again.warnings == ()
    again.add(record("bb"), outcomes())
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["aa", "bb"]


def test_a_malformed_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    Store.open(tmp_path, "demo")
    (tmp_path / "results.jsonl").write_text('{"id": "aa"}\n{oops}\n{"id": "bb"}\n')
    with pytest.raises(DataError, match=r"results\.jsonl:2 is not JSON"):
        reopened(tmp_path)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"holds thesis\.tex and no headwise\.json"):
        Store.open(tmp_path, "demo")
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", '{"schema": 1, "ki', "[]"])
def test_a_half_written_manifest_is_an_error(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DataError, match="half-written or not ours"):
        Store.open(tmp_path, "demo")


def test_what_a_kill_during_creation_leaves_behind_is_no_obstacle(tmp_path):
    (tmp_path / f".{MANIFEST}.x8d").write_text('{"sch')
    Store.open(tmp_path, "demo").add(record("aa"), outcomes())
    assert reopened(tmp_path).done("aa")


def test_the_folder_of_another_kind_or_version_is_refused(tmp_path):
    Store.open(tmp_path, "study a")
    with pytest.raises(DataError, match=r"belongs to study a of headwise .*, not to demo of headwise"):
        Store.open(tmp_path, "demo")
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"headwise": "99"}))
    with pytest.raises(DataError, match=r"belongs to study a of headwise 99"):
        Store.open(tmp_path, "study a")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(DataError, match="cannot be written to") as caught:
            Store.open(folder, "demo")
        assert "\n" not in str(caught.value)


def test_figures_that_are_no_numbers_are_never_written(tmp_path):
    store = Store.open(tmp_path, "demo")
    with pytest.raises(DataError, match="record aa holds a figure that is no finite number"):
        store.add(record("aa", cost=float("nan")))
    assert not (tmp_path / "results.jsonl").exists()


def test_no_temporary_file_is_left_where_writing_fails(tmp_path, monkeypatch):
    store = Store.open(tmp_path, "demo")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device"):
        store.add(record("aa"), outcomes())
    assert os.listdir(tmp_path / "outcomes") == []
    assert not (tmp_path / "results.jsonl").exists()
