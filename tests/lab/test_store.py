"""The output folder: what is written is whole, what is foreign is left alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path
from random import Random

import pytest
from tests.lab.as_json import add_json, json_outcomes
from tests.lab.fake_records import write_outcomes

from headwise import DataError
from headwise_lab.store.atomic import put
from headwise_lab.store.output_folder import MANIFEST, Store
from headwise_lab.store.records import outcomes_path


def record(identity: str, n: int = 2, **more):
    return {"id": identity, "n": n, **more}


def outcomes(n: int = 2):
    return [{"id": str(i), "score": 1.0, "prediction": "ß"} for i in range(n)]


def reopened(folder, kind="demo"):
    return Store.open(folder, kind)


def test_a_finished_trial_is_done_once_the_folder_is_opened_again(tmp_path):
    store = Store.open(tmp_path / "deep" / "out", "demo")
    assert not store.done("aa")
    add_json(store, record("aa"), outcomes())
    again = reopened(tmp_path / "deep" / "out")
    assert again.done("aa")
    assert not again.done("bb")
    assert json_outcomes(tmp_path / "deep" / "out", "aa") == outcomes()


def test_a_record_without_all_its_outcomes_is_not_done(tmp_path):
    store = Store.open(tmp_path, "demo")
    add_json(store, record("lost"), outcomes())
    add_json(store, record("short"), outcomes())
    add_json(store, record("failed", error="ValueError: no"))
    add_json(store, record("torn"), outcomes())
    add_json(store, record("whole"), outcomes())
    outcomes_path(tmp_path, "lost").unlink()
    write_outcomes(tmp_path, "short", outcomes()[:1])
    torn = outcomes_path(tmp_path, "torn")
    torn.write_bytes(torn.read_bytes()[:-1])
    again = reopened(tmp_path)
    assert [again.done(name) for name in ("lost", "short", "torn", "failed", "whole")] == [False] * 4 + [True]
    assert again.warnings == (f"{tmp_path} lacks outcomes of 3 trials, which are run again: lost, short, torn",)


def test_whether_a_trial_is_done_is_read_off_the_end_of_its_file(tmp_path):
    store = Store.open(tmp_path, "demo")
    add_json(store, record("aa", n=5000), [{"id": str(i), "score": i / 7} for i in range(5000)])
    path = outcomes_path(tmp_path, "aa")
    content = path.read_bytes()
    path.write_bytes(bytes(len(content) // 2) + content[len(content) // 2 :])
    assert store.done("aa")
    with pytest.raises(DataError, match=r"aa\.parquet is torn"):
        json_outcomes(tmp_path, "aa")


def test_a_store_knows_what_it_added_and_learns_what_others_did(tmp_path):
    store, other = (Store.open(tmp_path, "demo") for _ in range(2))
    add_json(store, record("aa", attempt=1), outcomes())
    assert (store.done("aa"), other.done("aa")) == (True, False)
    add_json(other, record("bb"), outcomes())
    add_json(other, record("aa", error="ValueError: late"))
    store.refresh()
    assert (list(store.records), store.done("aa"), store.done("bb")) == (["bb", "aa"], False, True)


def test_looking_changes_nothing(tmp_path):
    assert (Store.look(tmp_path / "absent").records, (tmp_path / "absent").exists()) == ({}, False)
    add_json(Store.open(tmp_path, "demo"), record("aa"), outcomes())
    with (tmp_path / "results.jsonl").open("a") as stream:
        stream.write('{"id": "to')
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    seen = Store.look(tmp_path)
    assert (list(seen.records), seen.done("aa"), len(seen.warnings)) == (["aa"], True, 1)
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_of_two_records_with_one_id_the_last_counts(tmp_path):
    store = Store.open(tmp_path, "demo")
    add_json(store, record("aa", error="RuntimeError: once"))
    add_json(store, record("aa"), outcomes())
    assert reopened(tmp_path).done("aa")


@pytest.mark.parametrize("torn", ['{"id": "bb", "n"', "{", '{"id": "ß'.encode()[:-1]])
def test_a_torn_last_line_is_dropped_and_the_next_record_stands_alone(tmp_path, torn):
    store = Store.open(tmp_path, "demo")
    add_json(store, record("aa"), outcomes())
    with (tmp_path / "results.jsonl").open("ab") as stream:
        stream.write(torn if isinstance(torn, bytes) else torn.encode())
    again = reopened(tmp_path)
    assert len(again.warnings) == 1
    assert "torn" in again.warnings[0]
    add_json(again, record("cc"), outcomes())
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["aa", "cc"]
    assert reopened(tmp_path).warnings == ()


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    add_json(Store.open(tmp_path, "demo"), record("aa"), outcomes())
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = reopened(tmp_path)
    assert again.done("aa")
    assert again.warnings == ()
    add_json(again, record("bb"), outcomes())
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


@pytest.mark.parametrize("content", ['{"kind": 1, "ki', "[]"])
def test_a_half_written_manifest_is_an_error(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DataError, match="half-written, or headwise did not write it"):
        Store.open(tmp_path, "demo")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_manifest_whose_copying_was_cut_short_is_written_again(tmp_path, share):
    add_json(Store.open(tmp_path, "demo"), record("aa"), outcomes())
    whole = (tmp_path / MANIFEST).read_bytes()
    (tmp_path / MANIFEST).write_bytes(whole[: int(share * len(whole))])
    again = reopened(tmp_path)
    assert again.warnings == (f"{tmp_path}/{MANIFEST} was half-written and has been written again",)
    assert again.done("aa")
    assert whole == (tmp_path / MANIFEST).read_bytes()


def test_what_a_kill_during_creation_leaves_behind_is_no_obstacle(tmp_path):
    (tmp_path / f".{MANIFEST}.x8d").write_text('{"sch')
    add_json(Store.open(tmp_path, "demo"), record("aa"), outcomes())
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
        add_json(store, record("aa", figure=float("nan")))
    assert not (tmp_path / "results.jsonl").exists()


def test_no_temporary_file_is_left_where_writing_fails(tmp_path, monkeypatch):
    store = Store.open(tmp_path, "demo")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device"):
        add_json(store, record("aa"), outcomes())
    assert os.listdir(tmp_path / "outcomes") == []
    assert not (tmp_path / "results.jsonl").exists()


def writing_fails(monkeypatch, number: int, share: float):
    """From now on a write stores a share of what it is given, and the next one fails."""
    real, written = os.write, []

    def write(handle, content):
        if written:
            raise OSError(number, os.strerror(number))
        written.append(handle)
        return real(handle, content[: int(share * len(content))])

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_record_that_could_be_written_only_in_part_leaves_the_file_as_it_was(tmp_path, monkeypatch, number, share):
    store = Store.open(tmp_path, "demo")
    add_json(store, record("aa"), outcomes())
    before = (tmp_path / "results.jsonl").read_bytes()
    with monkeypatch.context() as broken:
        writing_fails(broken, number, share)
        with pytest.raises(DataError, match=f"cannot be written to .{os.strerror(number)}.; ") as caught:
            add_json(store, record("bb"), outcomes())
    assert "\n" not in str(caught.value)
    assert before == (tmp_path / "results.jsonl").read_bytes()
    assert (store.done("aa"), store.done("bb")) == (True, False)
    add_json(store, record("bb"), outcomes())
    assert (reopened(tmp_path).done("bb"), reopened(tmp_path).warnings) == (True, ())


def test_a_record_that_is_not_safe_on_disk_is_not_acknowledged(tmp_path, monkeypatch):
    store = Store.open(tmp_path, "demo")
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(DataError, match="Input/output error"):
        add_json(store, record("aa"))
    assert (tmp_path / "results.jsonl").read_bytes() == b""


@pytest.mark.parametrize(("share", "kept"), [(0.5, ["aa"]), (1.0, ["aa", "bb"])])
def test_ctrl_c_keeps_a_record_that_is_written_and_drops_half_of_one(tmp_path, monkeypatch, share, kept):
    store, real = Store.open(tmp_path, "demo"), os.write
    add_json(store, record("aa"))

    def interrupted(handle, content):
        real(handle, content[: int(share * len(content))])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add_json(store, record("bb"))
    again = reopened(tmp_path)
    assert (list(again.records), [told for told in again.warnings if "torn" in told]) == (kept, [])


def test_a_write_that_the_system_splits_is_whole(tmp_path, monkeypatch):
    real = os.write
    store = Store.open(tmp_path, "demo")
    monkeypatch.setattr(os, "write", lambda handle, content: real(handle, content[:7]))
    add_json(store, record("aa", command="ß" * 40))
    assert [json.loads(line)["id"] for line in (tmp_path / "results.jsonl").read_bytes().splitlines()] == ["aa"]


def test_a_full_disk_as_the_system_tells_it_loses_nothing(tmp_path):
    """The limit on a file's size stands for a full disk: the system writes what fits, then fails."""
    resource = pytest.importorskip("resource", reason="limits on files are a matter of Unix")
    store = Store.open(tmp_path, "demo")
    add_json(store, record("aa", note="x" * 20_000), outcomes())
    before = (tmp_path / "results.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
        with pytest.raises(DataError, match=r"File too large\); make room and run the same line again"):
            add_json(store, record("bb"), outcomes())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert before == (tmp_path / "results.jsonl").read_bytes()
    add_json(store, record("bb"), outcomes())
    assert reopened(tmp_path).done("bb")


def test_a_folder_that_became_read_only_is_one_sentence_and_keeps_what_it_held(tmp_path, monkeypatch):
    add_json(Store.open(tmp_path, "demo"), record("aa"), outcomes())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    real = os.open

    def refused(path, flags, *rest, **more):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(DataError, match=r"Read-only file system\); give --out a folder you may write to"):
        Store.open(tmp_path, "demo")
    assert Store.look(tmp_path).done("aa")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_copy_that_was_cut_short_opens_and_lacks_only_what_was_cut(tmp_path):
    store = Store.open(tmp_path / "whole", "demo")
    names = [f"{number:02x}" for number in range(12)]
    for name in names:
        add_json(store, record(name), outcomes())
    draw = Random(5)
    for number in range(20):
        copy = shutil.copytree(tmp_path / "whole", tmp_path / f"copy{number}")
        content = (copy / "results.jsonl").read_bytes()
        kept = draw.randrange(len(content) + 1)
        (copy / "results.jsonl").write_bytes(content[:kept])
        lost = outcomes_path(copy, draw.choice(names))
        lost.write_bytes(lost.read_bytes()[: draw.randrange(lost.stat().st_size)])
        (copy / "outcomes" / f".{lost.name}.x1y2").write_bytes(b"PAR1")
        again = reopened(copy)
        whole = content[: kept + 1].count(b"\n")  # a line that lacks its newline alone is whole
        assert [name for name in names if again.done(name)] == [name for name in names[:whole] if name != lost.stem]
        cut = content[:kept].rpartition(b"\n")[2] and kept < len(content) - 1 and content[kept : kept + 1] != b"\n"
        told = " ".join(again.warnings)
        assert (bool(cut), lost.stem in names[:whole]) == ("was torn" in told, f"run again: {lost.stem}" in told)
        for name in names:
            if not again.done(name):
                add_json(again, record(name), outcomes())
        assert all(map(reopened(copy).done, names))
        assert reopened(copy).warnings == ()


def test_what_killed_writers_left_long_ago_is_removed_and_what_may_still_be_written_stays(tmp_path, monkeypatch):
    add_json(Store.open(tmp_path, "demo"), record("aa"), outcomes())
    with monkeypatch.context() as killed:
        killed.delattr(os, "replace")
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        for path in (outcomes_path(tmp_path, "bb"), outcomes_path(tmp_path, "aa"), tmp_path / "plan.json"):
            with pytest.raises(AttributeError):
                put(path, b"half")
    left = sorted(tmp_path.rglob(".*.part"))
    assert [path.parent.name for path in left] == [tmp_path.name, "outcomes", "outcomes"]
    now = time.time()
    for path, age in zip(left, (4000, 4000, 3000), strict=True):
        os.utime(path, (now - age, now - age))
    before = {path for path in tmp_path.rglob("*") if path not in left[:2]}
    reopened(tmp_path)
    assert set(tmp_path.rglob("*")) == before
    assert reopened(tmp_path).done("aa")
