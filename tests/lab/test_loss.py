"""What headwise may write to and remove: its own files in folders that are its own, and nothing of anybody else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.lab.as_json import add_json
from tests.lab.fake_records import fake_record, study_a, write_folder
from tests.lab.fake_sweep import swept, trials

from headwise import DataError
from headwise.cli import main
from headwise_lab.commands.sweeping import carry_out
from headwise_lab.store.atomic import put, whole
from headwise_lab.store.locations import place
from headwise_lab.store.manifest import manifest
from headwise_lab.store.output_folder import Store
from headwise_lab.store.unfinished import FOLDER as ANSWERS
from headwise_lab.store.unfinished import forget

LONG_AGO = 2 * 24 * 3600.0
TOLD = (
    *(".film.mkv.part", "film.mkv.part", ".part", "a.tmp", ".lock", ".headwise.json.lock.mine", "~", "a b", "progress"),
    *("results.jsonl.bak", "results.json", ".results.jsonl", ".results.jsonl.x.part", "outcomes.parquet", "export.csv"),
    *("outcomes/.x.part", "outcomes/x.parquet", "outcomes/.aa.parquet.k3j2h1g0.part", "outcomes/sub/.a.part"),
    *(".headwise-0123.part", ".headwise-film.part", "headwise-1.part", ".headwise-" + "g" * 32 + ".part", "export"),
    *("answers/notes.jsonl", "tables/mine.csv", "figures/mine.png", "plan.json.part", "notes/report.html"),
    "deep/er/.hidden.part",
)
"""Names that look like ours and are not."""
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)
OTHERS = st.builds(
    lambda folder, before, name, after: f"{folder}{before}{name}{after}",
    st.sampled_from(["", "", "outcomes/", "answers/", "tables/", "figures/", "mine/", "mine/deeper/"]),
    st.sampled_from(["", ".", ".headwise-", "results.jsonl", "."]),
    NAMES,
    st.sampled_from(["", ".part", ".tmp", ".lock", ".jsonl", ".parquet", ".json"]),
)


def seen(folder: Path, names: Iterable[str]) -> dict[str, tuple[bytes, int]]:
    return {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in names}


def put_there(folder: Path, names: Iterable[str]) -> dict[str, tuple[bytes, int]]:
    """Files of the user, two days old; a name that is there already, or is that of a folder, is left out."""
    made = []
    for number, name in enumerate(names):
        path = folder / name
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(f"mine {number}".encode())
            os.utime(path, (time.time() - LONG_AGO,) * 2)
            made.append(name)
    return seen(folder, made)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("reported")
    write_folder(folder, study_a(keeps=(48,), n=4)[:2], images=False)
    put(folder / "headwise.json", manifest("sweep"))
    return folder


def test_files_of_the_user_survive_every_command_that_writes_into_their_folder(reported, tmp_path, capsys):
    folder = tmp_path / "out"
    shutil.copytree(reported, folder)
    before = put_there(folder, TOLD)
    assert set(before) == set(TOLD)
    swept(tmp_path, trials(2, t0="refuses", t1="lacks"), out=folder)
    assert main(["status", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    assert main(["export", str(folder)]) == 0
    assert main(["report", str(folder), str(reported), "--allow-different", "--out", str(folder), "--overwrite"]) == 0
    assert seen(folder, TOLD) == before
    assert (folder / "export-trials.parquet").exists()
    capsys.readouterr()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(OTHERS, min_size=1, max_size=8))
def test_no_name_that_a_user_may_give_is_taken_for_ours(names, tmp_path):
    folder = tmp_path / "out"
    shutil.rmtree(folder, ignore_errors=True)
    Store.open(folder, "tune")
    before = put_there(folder, names)
    store = Store.open(folder, "tune")
    add_json(store, {**fake_record(), "n": 1}, [{"id": "0", "score": 1.0}])
    with whole([folder / "tune.md", folder / "tune.html"]) as written:
        for path in written:
            path.write_text("page")
    Store.open(folder, "tune").refresh()
    assert seen(folder, before) == before


def test_a_sweep_leaves_the_folder_of_answers_that_a_user_made(tmp_path):
    (tmp_path / ANSWERS).mkdir()
    forget(tmp_path, "aa")
    assert (tmp_path / ANSWERS).is_dir()


def refused(folder: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        carry_out(lambda _: [], str(folder), "sweep", Console(quiet=True))
    return str(caught.value)


def test_a_folder_that_is_refused_gets_no_file_at_all(tmp_path):
    foreign = tmp_path / "foreign"
    put_there(foreign, ["film.mkv"])
    assert "holds film.mkv and no headwise.json" in refused(foreign)
    assert [path.name for path in foreign.iterdir()] == ["film.mkv"]

    Store.open(tmp_path / "demo", "demo")
    before = sorted(path.name for path in (tmp_path / "demo").iterdir())
    assert "belongs to demo of headwise" in refused(tmp_path / "demo")
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == before

    names = sorted(os.listdir("/"))
    assert "/ holds" in refused("/")
    assert sorted(os.listdir("/")) == names

    (tmp_path / "file").write_text("mine")
    assert "cannot be written to" in refused(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder_stays_empty(tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written to (Permission denied)" in refused(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["outcomes", "results.jsonl", "headwise.json", "answers", ".headwise.json.append", ".headwise.json.lock"]
)
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_through_a_link(tmp_path, name, dangling):
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    swept(tmp_path, trials(2), out=folder)
    if (folder / name).exists():
        shutil.move(folder / name, elsewhere)
    elif name == "answers":
        elsewhere.mkdir()
    else:
        elsewhere.touch()
    if dangling:
        elsewhere = tmp_path / "nowhere"
    (folder / name).symlink_to(elsewhere)
    before = sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())
    assert f"{folder / name} is a link to {elsewhere}" in refused(folder)
    for kind in ("sweep", "run"):
        with pytest.raises(DataError, match="is a link to"):
            Store.open(folder, kind)
    assert before == sorted((str(path), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["tables", "figures"])
def test_a_report_does_not_write_through_a_linked_folder(reported, tmp_path, name, capsys):
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    shutil.copytree(reported, folder)
    elsewhere.mkdir()
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).symlink_to(elsewhere)
    assert main(["report", str(folder)]) == 2
    assert "is a link to" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


def test_a_file_that_is_linked_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "report.md").symlink_to(tmp_path / "mine")
    put(tmp_path / "report.md", b"new")
    assert ((tmp_path / "mine").read_text(), (tmp_path / "report.md").read_bytes()) == ("mine", b"new")


def test_the_tilde_is_the_home_folder(reported, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert place("~/x") == tmp_path / "x" == place(Path("~/x"))
    assert main(["export", str(reported), "--to=csv", "--out=~/x"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-outcomes.csv", "x-trials.csv"]
    capsys.readouterr()


NOBODY = "~nosuchuser/x"
LONG = "a/" * 2500
ODD = {
    NOBODY: "names the home folder of a user who is not known here",
    LONG: "is too long for the name of a file",
    "b" * 300: "is too long for the name of a file",
    "a\0b": "it has a null byte",
    "a\ud800": "it has half of a surrogate pair",
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "words",
    [
        ["status", "{}"],
        ["report", "{}"],
        ["export", "{}"],
        ["export", ".", "--out", "{}"],
        ["report", "--table", "{}"],
        ["report", ".", ".", "--out", "{}"],
        ["sweep", "kv", "--out", "{}"],
        ["sweep", "{}", "--plan"],
        ["import-results", "{}", "--out", "x"],
        ["plan", "--shape", "./{}", "--keep", "5"],
        ["plan", "--profile", "{}", "--strategy", "streaming", "--shape", "llava-1.5-7b"],
        ["judge", "{}"],
    ],
    ids=" ".join,
)
def test_names_that_no_file_can_have_are_sentences(words, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [word.replace("{}", name) for word in words]
    if name == NOBODY:
        given = [word.removeprefix("./") for word in given]
    assert main(given) == 2
    told = capsys.readouterr().err
    assert ODD[name] in told or ("Invalid value" in told and name not in (NOBODY, LONG))  # which typer finds out itself
    assert len(told) < 800
    assert not list(tmp_path.iterdir())
