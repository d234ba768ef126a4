"""Sweeps, workers and machines that are killed anywhere, again and again: the records are those of an untouched sweep.

None is lost, none counts twice, and nothing half-written is taken for a result.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from tests.lab.as_json import has_result, json_outcomes
from tests.lab.fake_kills import (
    HALF_A_LINE,
    LINE_WRITTEN,
    MOMENTS,
    NOTE_HIDDEN,
    OUTCOMES_HIDDEN,
    OUTCOMES_PLACED,
    Sweeps,
)
from tests.lab.fake_sweep import swept, trials
from tests.lab.test_sweep_local import alive, figure, until, workers

from headwise.cli import main
from headwise_lab.benchmarks import benchmark
from headwise_lab.store.output_folder import Store
from headwise_lab.sweeps.folder import is_locked
from headwise_lab.sweeps.status import look

KILLED = -signal.SIGKILL
COUNT = 16
"""Trials of a sweep."""


@pytest.fixture(scope="module")
def sweeps():
    with Sweeps() as started:
        yield started


def lines(folder: Path) -> list[dict]:
    """Every whole line; the last one, if it has no newline, is none."""
    path = folder / "out" / "results.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def outcomes(folder: Path) -> set[str]:
    """Ids of files of outcomes, which are whole once they have their name."""
    return {path.stem for path in (folder / "out" / "outcomes").glob("*.parquet")}


def counted(folder: Path) -> dict[str, tuple]:
    """Id -> what its last record and its outcomes say, of every trial there is anything of."""
    last = {record["id"]: record for record in lines(folder)}
    return {
        name: ({key: value for key, value in record.items() if key != "attempt"}, json_outcomes(folder / "out", name))
        for name, record in last.items()
    }


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> dict[str, tuple]:
    """What a sweep leaves that nothing happens to."""
    folder = tmp_path_factory.mktemp("untouched")
    assert swept(folder, trials(COUNT)).ran == COUNT
    found = counted(folder)
    assert sorted(found) == [trial.id for trial in trials(COUNT)] == sorted(outcomes(folder))
    return found


def check(folder: Path, untouched: dict[str, tuple], *, once: bool = True) -> None:
    """The same records and outcomes, nothing torn, nothing besides, no process left, and no trial that runs again."""
    assert counted(folder) == untouched
    assert outcomes(folder) == set(untouched)
    assert (folder / "out" / "results.jsonl").read_bytes().endswith(b"\n")
    successes = Counter(record["id"] for record in lines(folder) if has_result(record))
    assert set(successes) == set(untouched)
    assert not once or set(successes.values()) == {1}
    assert Store.open(folder / "out", "sweep").warnings == ()
    assert not is_locked(folder / "out")
    assert look(folder / "out").count("done") == COUNT
    until(lambda: not any(map(alive, set(workers(folder)) - {os.getpid()})))
    assert swept(folder, trials(COUNT)).found == COUNT


def came_to_pass(folder: Path, moment: str) -> bool:
    """Whether the store is as a sweep leaves it that is killed at this moment."""
    out = folder / "out"
    path = out / "results.jsonl"
    torn = path.exists() and not path.read_bytes().endswith((b"\n", b"")[not path.stat().st_size])
    recorded = {record["id"] for record in lines(folder) if has_result(record)}
    unrecorded = outcomes(folder) - recorded
    hidden = {path.parent.name for path in out.rglob(".*.part")}
    return {
        NOTE_HIDDEN: "out" in hidden,
        OUTCOMES_HIDDEN: "outcomes" in hidden,
        OUTCOMES_PLACED: len(unrecorded) > 0 and not torn,
        HALF_A_LINE: len(unrecorded) > 0 and torn,
        LINE_WRITTEN: len(recorded) > 0 and not torn,
    }.get(moment, True)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sweep_that_is_killed_at_every_moment_of_writing_ends_as_if_it_were_not(sweeps, untouched, tmp_path, seed):
    draw, kept = Random(seed), []
    for moment in draw.sample(MOMENTS, len(MOMENTS)):
        assert sweeps.run(tmp_path, COUNT, die=(moment, draw.randint(1, 3))) == KILLED
        assert came_to_pass(tmp_path, moment)
        assert lines(tmp_path)[: len(kept)] == kept
        kept = lines(tmp_path)
    assert sweeps.run(tmp_path, COUNT) == 0
    check(tmp_path, untouched)


def test_a_sweep_with_two_workers_that_is_killed_leaves_no_process_and_goes_on(sweeps, untouched, tmp_path):
    draw = Random(2)
    for moment in draw.sample([HALF_A_LINE, OUTCOMES_PLACED, OUTCOMES_HIDDEN], 2):
        assert sweeps.run(tmp_path, COUNT, workers=2, die=(moment, draw.randint(2, 5))) == KILLED
        assert came_to_pass(tmp_path, moment)
        assert workers(tmp_path)
        until(lambda: not any(map(alive, workers(tmp_path))))
    assert sweeps.run(tmp_path, COUNT, workers=2) == 0
    check(tmp_path, untouched)


def children(process: int) -> list[int]:
    """The workers of a sweep, those that are only starting included."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def kill_workers(process: int, folder: Path, draw: Random, times: int) -> int:
    """Kill a worker so many times while a sweep goes on; how many were killed."""
    killed = 0
    for number in range(times):
        until(lambda goal=(number + 1) * COUNT // (times + 2): len(lines(folder)) >= goal)
        time.sleep(draw.random() * 0.05)
        for victim in draw.sample(found := sorted(children(process)), min(1, len(found))):
            os.kill(victim, signal.SIGKILL)
            killed += 1
    return killed


def check_failures(folder: Path, killed: int) -> None:
    """No more failures than kills, each of them counted as an attempt before the one that succeeded."""
    failures = [record for record in lines(folder) if "error" in record]
    assert 1 <= len(failures) <= killed
    assert all(record["error"].startswith("WorkerDied: ") and "SIGKILL" in record["error"] for record in failures)
    for trial in trials(COUNT):
        attempts = [record["attempt"] for record in lines(folder) if record["id"] == trial.id]
        assert attempts == list(range(1, 1 + len(attempts)))


def test_workers_that_are_killed_again_and_again_cost_attempts_and_no_result(sweeps, untouched, tmp_path):
    last = {f"t{COUNT - 1}": "waits", f"t{COUNT - 2}": "waits"}  # so that there are workers to be killed
    process = sweeps.start(tmp_path, COUNT, workers=2, retries=9, pause=10, recipes=last)
    killed = kill_workers(process, tmp_path, Random(3), 4)
    (tmp_path / "go").touch()
    assert sweeps.wait(process) == 0
    check_failures(tmp_path, killed)
    check(tmp_path, untouched)


def copied(source: Path, copy: Path) -> None:
    """A copy as any program makes it that knows nothing of who else writes there."""
    missed = []
    try:
        shutil.copytree(source, copy)
    except shutil.Error as error:  # hidden files that had their name by the time they were to be copied
        missed = [why for _, _, why in error.args[0]]
    assert all("No such file or directory" in why for why in missed)


def damaged(out: Path, draw: Random, names: list[str]) -> None:
    """Cut off some files of a copy."""
    for name in names:
        path = out / name
        if path.exists():
            os.truncate(path, draw.randrange(path.stat().st_size + 1))


def repairs(out: Path, whole: Path) -> list[str]:
    """What has to be said about a copy, judged by the finished original: sorted pieces of warnings."""
    *records, rest = (out / "results.jsonl").read_bytes().split(b"\n")
    rest_is_whole = rest in (whole / "results.jsonl").read_bytes().split(b"\n")
    names = {json.loads(line)["id"] for line in [*records, *[rest] * (rest_is_whole and rest != b"")]}
    lost = [name for name in names if _content(out, name) != _content(whole, name)]
    manifest = (out / "headwise.json").read_bytes().rstrip() == (whole / "headwise.json").read_bytes().rstrip()
    pieces = [(not rest_is_whole, "the last line of"), (not manifest, "headwise.json was half-written"),
              (len(lost) > 0, f"lacks outcomes of {len(lost)} trial")]  # fmt: skip
    return [piece for true, piece in pieces if true]


def _content(out: Path, name: str) -> bytes | None:
    path = out / "outcomes" / f"{name}.parquet"
    return path.read_bytes() if path.exists() else None


def resumed(copy: Path, original: Path, untouched: dict[str, tuple]) -> list[str]:
    """Go on with a copy, and check that what was repaired is said; the pieces of warnings."""
    expected = repairs(copy / "out", original / "out")
    warnings = Store.open(copy / "out", "sweep").warnings
    assert len(warnings) == len(expected)
    assert all(any(piece in warning for warning in warnings) for piece in expected)
    names = {record["id"] for record in lines(copy)}
    kept = [name for name in names if _content(copy / "out", name) == _content(original / "out", name)]
    assert swept(copy, trials(COUNT), pause=0).found == len(kept)
    check(copy, untouched, once=False)
    return expected


def copies(sweeps, folder: Path, draw: Random, times: int) -> list[Path]:
    """Copies of a store in the middle of writing; the sweep is over at the end."""
    process = sweeps.start(folder, COUNT, pause=1, linger=2)
    for number in range(times):
        until(lambda goal=1 + number * (COUNT - 2) // times: len(lines(folder)) >= goal)
        time.sleep(draw.random() * 0.03)
        copied(folder / "out", folder / f"copy{number}" / "out")
    assert sweeps.wait(process) == 0
    return [folder / f"copy{number}" for number in range(times)]


def test_a_store_that_was_copied_while_it_was_written_and_cut_off_anywhere_goes_on(sweeps, untouched, tmp_path):
    draw, said = Random(4), Counter()
    for copy in copies(sweeps, tmp_path, draw, 4):
        listed = [f"outcomes/{name}.parquet" for name in sorted(outcomes(copy))]
        for number, names in enumerate((
            [],
            ["results.jsonl", "plan.json"],
            [*draw.sample(listed, min(2, len(listed))), "progress.json", "headwise.json"],
        )):  # fmt: skip
            again = tmp_path / f"{copy.name}-{number}"
            shutil.copytree(copy, again)
            damaged(again / "out", draw, names)
            said.update(piece[:9] for piece in resumed(again, tmp_path, untouched))
    assert sorted(said) == ["headwise.", "lacks out", "the last "]


def test_two_parts_in_one_folder_one_of_which_is_killed_end_as_one_sweep(sweeps, untouched, tmp_path):
    draw = Random(5)
    steady = sweeps.start(tmp_path, COUNT, part=(1, 2), linger=5, hold=(OUTCOMES_HIDDEN, COUNT // 2))
    for moment in draw.sample([HALF_A_LINE, LINE_WRITTEN, OUTCOMES_PLACED, OUTCOMES_HIDDEN], 4):
        assert sweeps.run(tmp_path, COUNT, part=(2, 2), die=(moment, draw.randint(1, 2))) == KILLED
    assert is_locked(tmp_path / "out")  # the other goes on
    assert 0 < look(tmp_path / "out").count("done") < COUNT
    (tmp_path / "go").touch()
    assert sweeps.run(tmp_path, COUNT, part=(2, 2)) == 0
    assert sweeps.wait(steady) == 0
    check(tmp_path, untouched)


def kill_at_random(sweeps, folder: Path, draw: Random, times: int, **options) -> None:
    """Start a sweep and kill it so many times, each time a few records further."""
    for number in range(times):
        process = sweeps.start(folder, COUNT, **options)
        until(lambda goal=number * COUNT // (times + 1): len(lines(folder)) >= goal and is_locked(folder / "out"))
        time.sleep(draw.random() * 0.1)
        os.kill(process, signal.SIGKILL)
        assert sweeps.wait(process) in (KILLED, 0)


@pytest.mark.slow
def test_each_moment_of_a_whole_sweep(sweeps, untouched, tmp_path):
    kills = 0
    for moment in MOMENTS:
        for nth in range(1, 3 * COUNT, 4):
            folder = tmp_path / f"{moment}-{nth}"
            if sweeps.run(folder, COUNT, die=(moment, nth)) == KILLED:
                kills += 1
                assert came_to_pass(folder, moment)
                assert sweeps.run(folder, COUNT) == 0
            check(folder, untouched)
    assert kills > 5 * len(MOMENTS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_everything_is_killed_at_random(sweeps, untouched, tmp_path, seed):
    draw = Random(seed)
    kill_at_random(sweeps, tmp_path / "one", draw, 6, workers=2, pause=10, linger=1)
    process = sweeps.start(tmp_path / "one", COUNT, workers=2)
    assert sweeps.wait(process) == 0
    check(tmp_path / "one", untouched)
    process = sweeps.start(tmp_path / "workers", COUNT, workers=3, retries=20, pause=20)
    killed = kill_workers(process, tmp_path / "workers", draw, 8)
    assert sweeps.wait(process) == 0
    check_failures(tmp_path / "workers", killed)
    check(tmp_path / "workers", untouched)
    for copy in copies(sweeps, tmp_path, draw, 5):
        listed = [f"outcomes/{name}.parquet" for name in sorted(outcomes(copy))]
        files = [*listed, "results.jsonl", "plan.json", "progress.json", "headwise.json"]
        damaged(copy / "out", draw, draw.sample(files, draw.randint(0, min(4, len(files)))))
        resumed(copy, tmp_path, untouched)
    parts = tmp_path / "parts"
    steady = sweeps.start(parts, COUNT, part=(2, 2), workers=1, pause=30, linger=5)
    kill_at_random(sweeps, parts, draw, 4, part=(1, 2), pause=5, linger=2)
    assert sweeps.run(parts, COUNT, part=(1, 2)) == 0
    assert sweeps.wait(steady) == 0
    check(parts, untouched)


REAL = """
models = ["demo-llava"]
benchmarks = ["shapes-gqa"]
limit = 8
timed_batches = 1
data = "questions"
[budgets]
keep = [16, 48]
[[grids]]
head_scoring = ["sparsity", "sum"]
heads = [4, 8]
"""


def real(file: Path, out: Path) -> subprocess.Popen:
    program = "import sys; from headwise.cli import main; sys.exit(main(sys.argv[1:]))"
    line = ["sweep", str(file), "--out", str(out), "--workers", "2"]
    return subprocess.Popen([sys.executable, "-c", program, *line], stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_real_sweep_that_is_killed_twice_has_the_records_of_one_that_is_not(tmp_path):
    benchmark("shapes-gqa").prepare(tmp_path / "questions", 8, 0)
    file = tmp_path / "real.toml"
    file.write_text(REAL)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for _ in range(2):
        before, process = len(lines(killed)), real(file, killed / "out")
        until(lambda before=before: len(lines(killed)) > before, patience=300)
        found = children(process.pid)
        process.kill()
        process.wait()
        assert len(found) > 0
        until(lambda found=found: not any(map(alive, found)))
    found = len(lines(killed))
    assert real(file, killed / "out").wait() == 0
    assert main(["sweep", str(file), "--out", str(whole / "out"), "--workers", "0"]) == 0
    first, second = ({record["id"]: record for record in lines(folder)} for folder in (killed, whole))
    assert 2 <= found < len(second) == len(lines(killed)) == len(lines(whole))
    assert {name: figure(record) for name, record in first.items()} == {
        name: figure(record) for name, record in second.items()
    }
    for name in second:
        assert json_outcomes(killed / "out", name) == json_outcomes(whole / "out", name)
    assert (killed / "out" / "report.html").is_file()
