"""A store in an object store, against a server on this machine that speaks S3."""

from __future__ import annotations

import signal
import socket

import pytest
from tests.lab.as_json import add_json, held, json_outcomes
from tests.lab.fake_kills import ANSWER, REQUEST, Sweeps
from tests.lab.fake_sweep import result, trials

from headwise import DataError
from headwise.cli import main
from headwise_lab.store.locations import place
from headwise_lab.store.output_folder import Store
from headwise_lab.store.working_copy import at_hand
from headwise_lab.sweeps.folder import SweepProgress, is_locked, locked, read_progress, write_plan, write_progress
from headwise_lab.sweeps.status import look

s3fs = pytest.importorskip("s3fs", reason="needs the extra s3")
server_of = pytest.importorskip("moto.server", reason="needs moto[server]")
WORDS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="module")
def server():
    """The server's URL, with a bucket of the name ``lab``."""
    running = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in WORDS.items():
            patched.setenv(name, value)
        patched.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("lab")
        yield f"http://{host}:{port}"
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture
def url(server, request):
    return f"s3://lab/{request.node.name}"


def outcomes(number: int, n: int = 3) -> list[dict]:
    return [{"id": str(i), "score": number / 8, "kept": [i], "boxes": []} for i in range(n)]


def test_records_and_outcomes_come_back_from_an_object_store(url):
    store = Store.open(place(url), "sweep")
    add_json(store, {"id": "00", "n": 3, "error": "RuntimeError: once"})
    for number in range(5):
        add_json(store, {"id": f"{number:02x}", "n": 3, "attempt": number}, outcomes(number))
    again = Store.open(place(url), "sweep")
    assert again.warnings == ()
    assert held(again) == held(store)
    assert [again.done(f"{number:02x}") for number in range(6)] == [True] * 5 + [False]
    with at_hand(place(url)) as folder:
        assert len((folder / "results.jsonl").read_bytes().splitlines()) == 6
        assert [json_outcomes(folder, f"{number:02x}") for number in range(5)] == [outcomes(n) for n in range(5)]


def test_each_record_and_each_trials_outcomes_are_one_object(url, server):
    store = Store.open(place(url), "sweep")
    for number in range(2):
        add_json(store, {"id": f"{number:02x}", "n": 3}, outcomes(number))
    names = [name.partition(f"{url[5:]}/")[2] for name in s3fs.S3FileSystem().find(url)]
    assert [name.partition("/")[0] for name in names] == ["headwise.json", "outcomes", "outcomes", "records", "records"]
    assert names[1:3] == ["outcomes/00.parquet", "outcomes/01.parquet"]


def test_the_outcomes_of_a_large_trial_are_counted_by_their_end(url):
    rows = [{"id": f"{number * 7919 % 30011}", "score": number / 30011} for number in range(30000)]
    add_json(Store.open(place(url), "sweep"), {"id": "aa", "n": len(rows)}, rows)
    assert Store.look(place(url)).done("aa")


def test_status_tells_of_a_sweep_behind_a_url(url, capsys):
    listed = trials(4)
    folder = place(url)
    with locked(folder):
        store = Store.open(folder, "sweep")
        write_plan(folder, "Fake", listed)
        for trial in listed[:2]:
            add_json(
                store, {"id": trial.id, "n": 3, "metric": {"name": "points", "value": 1.0, "se": None}}, outcomes(1)
            )
        write_progress(folder, SweepProgress(running=(listed[2].id,), questions=6, seconds=3.0), part=(1, 2))
        write_progress(folder, SweepProgress(running=(listed[3].id,), questions=3, seconds=3.0), part=(2, 2))
        assert is_locked(folder)
        assert read_progress(folder).rate == pytest.approx(6 / 3 + 3 / 3)
        assert [state for _, state in look(folder).trials] == ["done", "done", "running", "running"]
        for part in ((1, 2), (2, 2)):
            write_progress(folder, SweepProgress(questions=6, seconds=3.0), part=part)
    assert not is_locked(folder)
    assert main(["status", url]) == 0
    assert "Fake: 4 trials, 2 done, 2 waiting; not running" in capsys.readouterr().out


def test_a_sweep_that_is_killed_around_its_requests_ends_as_if_it_were_not(url, tmp_path):
    listed, killed = trials(8), -signal.SIGKILL
    with Sweeps("s3fs") as sweeps:
        for die in ((REQUEST, 1), (ANSWER, 1), (REQUEST, 6), (ANSWER, 4), (ANSWER, 5)):
            assert sweeps.run(tmp_path, len(listed), out=url, die=die) == killed
        found = len(Store.look(place(url)).records)
        assert sweeps.run(tmp_path, len(listed), out=url) == 0
    store = Store.open(place(url), "sweep")
    assert store.warnings == ()
    assert 2 <= found < len(listed)
    assert held(store) == {trial.id: {**result(trial)[0], "attempt": 1} for trial in listed}
    with at_hand(place(url)) as copy:
        assert len((copy / "results.jsonl").read_bytes().splitlines()) == len(listed)
        assert all(json_outcomes(copy, trial.id) == result(trial)[1] for trial in listed)
    assert not is_locked(place(url))


def test_a_bucket_that_is_not_there_is_one_sentence_and_is_not_made(server):
    with pytest.raises(DataError, match="s3://nowhere/out cannot be") as caught:
        Store.open(place("s3://nowhere/out"), "sweep")
    assert "bucket does not exist" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert s3fs.S3FileSystem().ls("") == ["lab"]


def test_where_there_is_no_sweep_that_is_one_sentence(url, capsys):
    assert main(["status", url]) == 2
    assert "plan.json is not there; give the --out folder of `headwise sweep`" in capsys.readouterr().err


@pytest.fixture
def nobody_listens(monkeypatch):
    """A port of this machine on which connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for name, value in {**WORDS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("nobody_listens")
def test_a_server_that_is_down_is_one_sentence(capsys):
    assert main(["export", "s3://lab/out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("headwise: s3://lab/out cannot be read (")


def test_denied_access_is_one_sentence_and_what_is_stored_stays(url, monkeypatch):
    store = Store.open(place(url), "sweep")
    add_json(store, {"id": "aa", "n": 3}, outcomes(1))

    async def denied(*_, **__):
        raise PermissionError(13, "Access Denied")

    with monkeypatch.context() as refused:
        refused.setattr(s3fs.S3FileSystem, "_call_s3", denied)
        with pytest.raises(DataError, match=r"cannot be written to \(Access Denied\); check") as caught:
            add_json(store, {"id": "bb", "n": 3}, outcomes(2))
    assert "\n" not in str(caught.value)
    assert list(Store.look(place(url)).records) == ["aa"]
