"""Folders and URLs: what a user names is found, unknown or missing things are one sentence, copies come and go."""

from __future__ import annotations

import errno
import sys
from datetime import datetime
from pathlib import Path

import fsspec
import pytest
from tests.lab.as_json import add_json, held, json_outcomes, json_records
from tests.lab.fake_records import fake_record, write_folder
from upath import UPath

from headwise import DataError
from headwise.cli import main
from headwise_lab.store.locations import is_local, place
from headwise_lab.store.output_folder import Store, kind_of
from headwise_lab.store.working_copy import at_hand


@pytest.fixture
def url(request):
    """A folder of fsspec's memory that no other test has; it vanishes with the test."""
    name = f"memory://{request.node.name.partition('[')[0]}/out"
    yield name
    fsspec.filesystem("memory").store.clear()


def filled(url: str) -> Store:
    store = Store.open(place(url), "demo")
    for number in range(3):
        add_json(store, {**fake_record(keep=number + 1), "n": 2}, [{"id": str(i), "score": 0.5} for i in range(2)])
    return store


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("a/b", Path("a/b")),
        (Path("/a"), Path("/a")),
        ("file:///a/b%20c", Path("/a/b c")),
        ("file://localhost/a", Path("/a")),
        ("C:odd:name", Path("C:odd:name")),
    ],
)
def test_local_folders_are_ordinary_paths(given, path):
    assert (path, True) == (place(given), is_local(place(given)))


def test_urls_keep_their_parts():
    folder = place("memory://bucket/dir/")
    assert (str(folder), folder.name, is_local(folder)) == ("memory://bucket/dir", "dir", False)
    assert str(folder / "a" / "b") == "memory://bucket/dir/a/b"
    assert place(folder) is folder


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nosuch://a", "nosuch://a begins with nosuch://, which fsspec does not know; give a folder or an s3:// URL"),
        ("file://server/a", "file://server/a names the machine server; give file:///absolute/path, or the path alone"),
        (
            "s3://bucket/out",
            's3://bucket/out needs a package that is not installed: pip install "headwise[s3]"',
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_reached_is_one_sentence(given, message, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for scheme in ("s3", "s3a"):  # classes that other tests have found already
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(DataError) as caught:
        place(given)
    assert message == str(caught.value)
    assert main(["status", given]) == 2
    assert message in capsys.readouterr().err


def test_a_store_behind_a_url_holds_what_a_local_one_holds(url, tmp_path):
    remote, local = filled(url), Store.open(tmp_path / "out", "demo")
    for record in held(remote).values():
        add_json(local, record, [{"id": str(i), "score": 0.5} for i in range(2)])
    with at_hand(place(url)) as copy:
        assert json_records(copy) == json_records(tmp_path / "out")
        for identity in local.records:
            assert json_outcomes(copy, identity) == json_outcomes(tmp_path / "out", identity)
        assert (copy / "headwise.json").read_bytes() == (tmp_path / "out" / "headwise.json").read_bytes()
    assert not copy.exists()
    assert kind_of(place(url)) == kind_of(tmp_path / "out") == "demo"


def test_a_local_folder_is_at_hand_as_it_is(tmp_path):
    with at_hand(tmp_path, writes=True) as folder:
        assert folder is tmp_path


def test_new_and_changed_files_go_back_and_nothing_else(url):
    filled(url)
    fs = fsspec.filesystem("memory")
    root = place(url).path
    fs.pipe({f"{root}/report.md": b"old", f"{root}/figures/a.svg": b"a"})
    records = {name: fs.created(name) for name in fs.find(root) if "report" not in name}
    with at_hand(place(url), writes=True) as folder:
        assert (folder / "report.md").read_text() == "old"
        (folder / "report.md").write_text("new report")
        (folder / "tables").mkdir()
        (folder / "tables" / "t.csv").write_text("1")
    assert fs.cat(f"{root}/report.md") == b"new report"
    assert fs.cat(f"{root}/tables/t.csv") == b"1"
    assert not fs.exists(f"{root}/results.jsonl")
    assert records == {name: fs.created(name) for name in records}


def test_nothing_goes_back_where_something_was_raised_and_the_url_is_named(url):
    filled(url)

    def fails() -> None:
        with at_hand(place(url), writes=True) as folder:
            (folder / "report.md").write_text("half")
            raise DataError(f"{folder}/report.md is bad")

    with pytest.raises(DataError, match=f"^{url}/report.md is bad$"):
        fails()
    assert not fsspec.filesystem("memory").exists(f"{place(url).path}/report.md")


def test_nothing_behind_a_url_is_one_sentence(url):
    with pytest.raises(DataError, match="holds nothing; give the output folder of a run"), at_hand(place(url)):
        pass


def test_records_that_several_stores_add_are_all_there_in_order(url):
    stores = [Store.open(place(url), "demo") for _ in range(3)]
    for number in range(9):
        add_json(stores[number % 3], {"id": f"{number % 4}", "attempt": number})
    seen = Store.look(place(url)).records
    assert {identity: record.attempt for identity, record in seen.items()} == {"0": 8, "1": 5, "2": 6, "3": 7}
    stores[0].refresh()
    assert dict(stores[0].records) == dict(seen)


def test_a_later_attempt_counts_though_its_machine_is_behind(url, monkeypatch):
    import headwise_lab.store.object_store as module

    first = Store.open(place(url), "demo")
    add_json(first, {"id": "aa", "attempt": 1})
    second = Store.open(place(url), "demo")
    monkeypatch.setattr(module, "datetime", _Behind)
    add_json(second, {"id": "aa", "attempt": 2})
    add_json(second, {"id": "aa", "attempt": 3})
    assert Store.look(place(url)).records["aa"].attempt == 3


class _Behind(datetime):
    """A clock that is years behind."""

    @classmethod
    def now(cls, zone):
        return datetime(2001, 1, 1, tzinfo=zone)


def test_half_written_things_behind_a_url_are_told_and_run_again(url):
    filled(url)
    fs, root = fsspec.filesystem("memory"), place(url).path
    names = sorted(fs.find(f"{root}/records"))
    fs.pipe(names[0], fs.cat(names[0])[:50])
    fs.pipe(f"{root}/headwise.json", fs.cat(f"{root}/headwise.json")[:9])
    torn = fake_record(keep=2)["id"]
    path = f"{root}/outcomes/{torn}.parquet"
    fs.pipe(path, fs.cat(path)[:-3])
    again = Store.open(place(url), "demo")
    assert again.warnings == (
        f"{url}/headwise.json was half-written and has been written again",
        f"{url}{names[0].removeprefix(root)} is half-written and was left out",
        f"{url} lacks outcomes of 1 trial, which is run again: {torn}",
    )
    assert [again.done(fake_record(keep=keep)["id"]) for keep in (1, 2, 3)] == [False, False, True]
    fs.rm(f"{root}/outcomes/{fake_record(keep=3)['id']}.parquet")
    again.refresh()
    assert not again.done(fake_record(keep=3)["id"])


def test_a_url_of_another_kind_or_with_other_things_is_refused(url):
    filled(url)
    with pytest.raises(DataError, match=r"belongs to demo of headwise .*, not to sweep of headwise"):
        Store.open(place(url), "sweep")
    fsspec.filesystem("memory").pipe("/elsewhere/thesis.tex", b"x")
    with pytest.raises(DataError, match=r"memory://elsewhere holds thesis\.tex and no headwise\.json"):
        Store.open(place("memory://elsewhere"), "demo")
    assert fsspec.filesystem("memory").find("/elsewhere") == ["/elsewhere/thesis.tex"]


def test_a_request_that_fails_is_one_sentence_and_loses_nothing(url, monkeypatch):
    store = filled(url)
    before = dict(store.records)

    def broken(*_, **__):
        raise ConnectionError(errno.ECONNREFUSED, "Connection refused")

    with monkeypatch.context() as offline:
        offline.setattr(type(fsspec.filesystem("memory")), "pipe_file", broken)
        with pytest.raises(DataError, match=r"out cannot be written to \(Connection refused\); check") as caught:
            add_json(store, {"id": "late", "n": 1}, [{"id": "0", "score": 1.0}])
    assert "\n" not in str(caught.value)
    assert (before, store.done("late")) == (dict(Store.look(place(url)).records), False)
    add_json(store, {"id": "late", "n": 1}, [{"id": "0", "score": 1.0}])
    assert Store.look(place(url)).done("late")


@pytest.fixture
def both(url, tmp_path):
    """The same trials in a folder and behind a URL."""
    trials = [(fake_record(n=12), 0.5), (fake_record("sharp", 4, n=12), 0.8)]
    store = Store.open(place(url), "demo")
    for record in write_folder(tmp_path / "run", trials, images=False):
        add_json(store, record, json_outcomes(tmp_path / "run", record["id"]))
    return str(tmp_path / "run"), url


def test_export_of_a_url_lies_beside_its_records_and_equals_that_of_a_folder(both, capsys):
    local, url = both
    for given in both:
        assert main(["export", given, "--to", "csv"]) == 0
    for name in ("export-trials.csv", "export-outcomes.csv"):
        assert (Path(local) / name).read_bytes() == UPath(f"{url}/{name}").read_bytes()
    assert f"Wrote {url}/export-trials.csv and {url}/export-outcomes.csv." in capsys.readouterr().out
    assert main(["export", url, "--to", "csv"]) == 2
    assert f"headwise: {url}/export-trials.csv is there already" in capsys.readouterr().err


def test_a_url_is_compared_as_a_folder_is(both, capsys):
    local, url = both
    identity = fake_record(n=12)["id"]
    told = []
    for left, right in ((local, local), (url, local), (f"{url}:{identity}", f"{local}:{identity}")):
        assert main(["report", left, right, "--json"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert 'difference": 0.0' in told[2]


def test_a_run_behind_a_url_ends_with_its_report_there(both, capsys):
    from rich.console import Console

    from headwise_lab.commands.ending import finish
    from headwise_lab.sweeps.tally import Tally

    url = both[1]
    finish(Store.open(place(url), "demo"), Tally(ran=2), "Made up", Console(stderr=True))
    assert f"Report: {url}/report.html (also report.md" in capsys.readouterr().out
    assert UPath(f"{url}/report.md").read_text().startswith("# Made up")
    assert UPath(f"{url}/report.html").exists()
    assert not UPath(f"{url}/results.jsonl").exists()
