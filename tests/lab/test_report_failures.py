"""The failures of a report: everything without a result, with reason, attempts and command."""

from __future__ import annotations

import json

import pytest
from tests.lab.fake_records import fake_record, write_folder

from headwise_lab.report.content import gather
from headwise_lab.report.failures import failures, last_line
from headwise_lab.store.record_schema import record_of


def test_every_failed_and_refused_trial_is_listed_with_its_last_error_and_attempts(tmp_path):
    write_folder(tmp_path, [(fake_record(), 0.5)], images=False)
    broken = {key: value for key, value in fake_record("broken", 4).items() if key != "metric"}
    errors = ["Traceback (most recent call last):\n  ...\nMemoryError: first", "Traceback\nMemoryError: second\n"]
    refused = {**fake_record("vast", 4), "refused": "keep=500 cannot be met"}
    with (tmp_path / "results.jsonl").open("a") as stream:
        stream.writelines(json.dumps({**broken, "error": error}) + "\n" for error in errors)
        stream.write(json.dumps(refused) + "\n")
    grid = next(grid for grid in gather(tmp_path).closing if grid.slug == "failures")
    assert [[mark.text for mark in row[2:]] for row in grid.rows] == [
        ["failed", "2", "MemoryError: second", "headwise run --strategy broken"],
        ["refused", "-", "keep=500 cannot be met", "headwise run --strategy vast"],
    ]
    assert grid.rows[0][1].text.startswith("made-up, keep=16, query_selection=last_token head_scoring=broken")


def test_a_trial_that_succeeded_in_the_end_is_no_failure(tmp_path):
    record = fake_record()
    write_folder(tmp_path, [(record, 0.5)], images=False)
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({**record, "error": "once"}) + "\n" + path.read_text())
    assert not [grid for grid in gather(tmp_path).closing if grid.slug == "failures"]


def test_a_record_that_counts_its_own_attempts_is_believed():
    grid = failures([record_of({"id": "a", "error": "no", "attempt": 5})], {"a": 2})
    assert [row[3].text for row in grid.rows] == ["5"]
    assert failures([record_of(fake_record())], {}) is None


@pytest.mark.parametrize(("error", "told"), [("one\ntwo\n\n", "two"), ("", "-"), (None, "None"), ("x", "x")])
def test_the_last_line_that_says_something_is_shown(error, told):
    assert told == last_line(error)
