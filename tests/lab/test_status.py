"""``headwise status``: what it tells of a sweep that runs, that ended, or that was cut short."""

from __future__ import annotations

import json

import pytest
from tests.lab.fake_sweep import FakeRunner, swept, trials, value

from headwise import DataError
from headwise.cli import main
from headwise_lab.commands.status import duration
from headwise_lab.sweeps.folder import SweepProgress, is_locked, locked, read_progress, write_plan, write_progress
from headwise_lab.sweeps.status import look
from headwise_lab.sweeps.trials import Trial


def states(folder):
    return [state for _, state in look(folder / "out").trials]


def test_a_finished_sweep_is_told_with_its_failures_and_best(tmp_path, capsys):
    listed = [*trials(4, t1="refuses", t2="lacks"), Trial(id="aa", label="big", model="a", benchmark="x", refused="no")]
    swept(tmp_path, listed)
    assert states(tmp_path) == ["done", "failed", "refused", "done", "refused"]
    assert main(["status", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "Fake: 5 trials, 2 done, 1 failed, 2 refused; not running\n" in told
    assert "failed (attempt 1): trial 1: HeadwiseError: heads=9 is too many" in told
    assert "not run: trial 2: the model has no CLIP tower" in told
    assert "not run: big: no" in told
    assert "best so far: b, trial 3: points 3.00" in told
    assert main(["status", str(tmp_path / "out"), "--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert {key: as_json[key] for key in ("done", "running", "failed", "refused", "waiting", "active")} == {
        "done": 2, "running": 0, "failed": 1, "refused": 2, "waiting": 0, "active": False,
    }  # fmt: skip
    assert as_json["best"]["b y"] == {"id": "0003", "label": "trial 3", "value": 3.0}
    assert as_json["best"]["b x"] is None


def test_the_best_is_the_highest_figure_of_what_prunes(tmp_path):
    listed = trials(12)
    swept(tmp_path, listed)
    found = look(tmp_path / "out")
    for model, benchmark in found.groups():
        mine = [trial for trial in listed if (trial.model, trial.benchmark) == (model, benchmark)]
        trial, record = found.best(model, benchmark)
        assert record.metric.value == max(map(value, mine)) == value(trial)


class Watcher:
    """Looks at the folder of the sweep it runs."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def run(self, work, listed, tell):
        from headwise_lab.sweeps.executor import Advanced, Ended, Started, attempt

        runner = FakeRunner(work.terms)
        for trial in listed:
            tell(Started(trial.id))
            self.seen.append(look(self.folder))
            tell(Ended(trial.id, attempt(runner, trial, lambda rows, name=trial.id: tell(Advanced(name, rows)))))


def test_a_running_sweep_tells_what_runs_and_how_long_it_takes(tmp_path):
    watcher = Watcher(tmp_path / "out")
    swept(tmp_path, trials(4), executor=watcher)
    assert [found.count("done") for found in watcher.seen] == [0, 1, 2, 3]
    assert [found.count("running") for found in watcher.seen] == [1, 1, 1, 1]
    assert [found.count("waiting") for found in watcher.seen] == [3, 2, 1, 0]
    assert all(found.active for found in watcher.seen)
    assert watcher.seen[0].left is None
    assert all(found.left > 0 for found in watcher.seen[1:])
    assert not look(tmp_path / "out").active


def test_the_time_left_follows_from_the_rate_so_far(tmp_path, capsys):
    swept(tmp_path, trials(2))
    write_plan(tmp_path / "out", "More", trials(12))
    write_progress(tmp_path / "out", SweepProgress(running=("0005",), questions=6, seconds=30.0))
    with locked(tmp_path / "out"):
        found = look(tmp_path / "out")
        main(["status", str(tmp_path / "out")])
    assert found.left == pytest.approx(30.0 / 6 * 10 * 3)
    told = capsys.readouterr().out
    assert "More: 12 trials, 2 done, 1 running, 9 waiting; running; about 2 min 30 s left" in told
    assert "running: trial 5" in told
    assert states(tmp_path).count("running") == 0  # the lock is gone, whatever the note says


def test_parts_run_at_once_but_never_the_same_one_and_none_beside_the_whole(tmp_path):
    with locked(tmp_path, (1, 2)), locked(tmp_path, (2, 2)):
        assert is_locked(tmp_path)
        for other in ((1, 2), None):
            with pytest.raises(DataError, match="another sweep is running in"), locked(tmp_path, other):
                pass
    with locked(tmp_path):
        for other in ((1, 2), None):
            with pytest.raises(DataError, match="another sweep is running in"), locked(tmp_path, other):
                pass
    assert not is_locked(tmp_path)


def test_the_rates_of_parts_that_run_add_up_and_others_do_not_count(tmp_path):
    write_progress(tmp_path, SweepProgress(running=("old",), questions=900, seconds=1.0))
    for number in (1, 2, 3):
        told = SweepProgress(running=(f"t{number}",), questions=10 * number, seconds=5.0 * number)
        write_progress(tmp_path, told, (number, 3))
    with locked(tmp_path, (1, 3)):
        assert read_progress(tmp_path) == SweepProgress(running=("t1",), questions=10, seconds=5.0)
        with locked(tmp_path, (3, 3)):
            found = read_progress(tmp_path)
    assert (found.running, found.questions) == (("t1", "t3"), 40)
    assert found.rate == pytest.approx(10 / 5 + 30 / 15)


def test_before_the_first_record_everything_waits(tmp_path):
    write_plan(tmp_path, "New", trials(3))
    assert [state for _, state in look(tmp_path).trials] == ["waiting"] * 3


def test_a_half_written_store_is_read_as_far_as_it_goes_and_not_changed(tmp_path, capsys):
    listed = trials(4)
    swept(tmp_path, listed)
    out = tmp_path / "out"
    whole = (out / "results.jsonl").read_bytes()
    torn = whole[: whole.rindex(b"\n", 0, -1) + 20]
    (out / "results.jsonl").write_bytes(torn)
    (out / "outcomes" / "0000.parquet").unlink()
    torn_outcomes = out / "outcomes" / "0001.parquet"
    torn_outcomes.write_bytes(torn_outcomes.read_bytes()[:-20])
    (out / "progress.json").write_text('{"runn')
    assert states(tmp_path) == ["waiting", "waiting", "done", "waiting"]
    assert main(["status", str(out)]) == 0
    assert "warning: The last line of results.jsonl is torn" in capsys.readouterr().err
    assert (out / "results.jsonl").read_bytes() == torn


@pytest.mark.parametrize("content", ["", "[]", '{"title": "x"', '{"title": "x", "trials": [{"id": 3}]}'])
def test_a_plan_that_is_not_whole_is_one_sentence(tmp_path, content):
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(DataError, match="half-written, or headwise did not write it"):
        look(tmp_path)


def test_a_folder_without_a_sweep_is_one_sentence(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert "plan.json cannot be read (No such file or directory); give the --out folder" in capsys.readouterr().err


@pytest.mark.parametrize("told", ["", "[]", "{}", '{"running": 3, "questions": 1, "seconds": 2}'])
def test_progress_that_cannot_be_read_is_no_progress(tmp_path, told):
    (tmp_path / "progress.json").write_text(told)
    assert read_progress(tmp_path) == SweepProgress()


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (3660, "1 h 1 min")]
)
def test_durations_are_told_as_far_as_they_matter(seconds, told):
    assert duration(seconds) == told
