"""Reading a run's folder, whole or half-written."""

from __future__ import annotations

import json

import pytest
from tests.lab.as_json import json_outcomes, json_records
from tests.lab.fake_records import fake_record, write_folder, write_outcomes

from headwise.errors import DataError


def lay(folder, *lines: str):
    (folder / "results.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def line(**changes) -> str:
    return json.dumps({**fake_record(), **changes}) + "\n"


def test_records_come_back_as_written_unknown_keys_included(tmp_path):
    record = {**fake_record(), "schema": 7, "from_the_future": [1]}
    assert ([record], []) == json_records(lay(tmp_path, json.dumps(record) + "\n"))


def test_a_torn_last_line_is_dropped_and_said_so(tmp_path):
    records, warnings = json_records(lay(tmp_path, line(), line(id="b")[:40]))
    assert [fake_record()["id"]] == [record["id"] for record in records]
    assert warnings == ["The last line of results.jsonl is torn and was dropped; the run may be unfinished."]


def test_a_torn_letter_of_several_bytes_is_a_torn_line(tmp_path):
    whole = line().encode() + '{"id": "±'.encode()[:-1]
    (tmp_path / "results.jsonl").write_bytes(whole)
    records, warnings = json_records(tmp_path)
    assert (len(records), len(warnings)) == (1, 1)


def test_a_last_line_without_newline_that_is_whole_counts(tmp_path):
    records, warnings = json_records(lay(tmp_path, line(), line(id="b").rstrip("\n")))
    assert (len(records), warnings) == (2, [])


def test_of_records_with_one_id_the_last_counts(tmp_path):
    records, _ = json_records(lay(tmp_path, line(id="a", n=1), line(id="b"), line(id="a", n=2)))
    assert [(record["id"], record["n"]) for record in records] == [("b", 60), ("a", 2)]


def test_a_failed_trial_needs_no_result(tmp_path):
    failed = {"id": "a", "error": "ContractError: something"}
    assert [failed] == json_records(lay(tmp_path, json.dumps(failed) + "\n"))[0]


BAD = {
    "not json\n": "is not JSON",
    "[1]\n": "is not a JSON object",
    '{"a": ' * 60 + "1" + "}" * 60 + "\n": "is nested too deep",
    "[" * 100_000 + "\n": "is not JSON",
    '{"id": ' + "9" * 5000 + "}\n": "is not JSON",
    line(id="../../etc/passwd"): "needs an id of letters and digits",
    line(id="a" * 300): "needs an id of letters and digits",
    line(id="b", metric={"value": None}): "record b has no usable 'metric.value'",
    line(id="b", error=3): "error of record b is no text: 3",
    line(id="b", study="needle"): "is a record of `headwise needle`",
    line(id="b", benchmark=["x"]): "benchmark of record b is no text",
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_record_is_named_and_left_out_and_the_others_are_reported(tmp_path, bad, place):
    lines = [line(id="a"), line(id="c")]
    lines.insert(place, bad)
    records, warnings = json_records(lay(tmp_path, *lines))
    assert [record["id"] for record in records] == ["a", "c"]
    (warning,) = warnings
    assert f"results.jsonl:{place + 1}" in warning
    assert BAD[bad] in warning
    assert warning.endswith("it was left out.")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["\n"], "holds no whole record"),
        (['{"id": "a"'], "holds no whole record"),
        (["not json\n"], r"results\.jsonl:1 is not JSON"),
        (["[1]\n"], r"results\.jsonl:1 is not a JSON object"),
        ([line(metric={"value": None})], r"jsonl:1: record \w+ has no usable 'metric.value': None is not a number"),
        ([line(metric={"value": float("nan")})], "nan is not a number that can be computed with"),
        ([line(strategies={"head_scoring": 3})], "no usable 'strategies': 3 is not a text"),
        ([line(strategies={"head_scoring": ":"})], "no usable 'strategies.head_scoring': strategy text"),
        ([line(metric={"value": 10**400})], "no usable 'metric.value': 1000"),
        ([line(seed="0")], "no usable 'seed': '0' is not a whole number"),
        ([line(versions=["a"])], "no usable 'versions'"),
        ([line(heads={"mean": "all"})], "no usable 'heads.mean'"),
        ([line(budget=None)], r"no usable 'budget'"),
        ([line(n=True)], r"no usable 'n'"),
        ([line(cost=[1])], r"no usable 'cost': \[1\] is not an object"),
        ([line(id="../../etc/passwd")], "needs an id of letters and digits"),
    ],
)
def test_a_malformed_folder_is_one_sentence_naming_the_line(tmp_path, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        json_records(lay(tmp_path, *lines))
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_records_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"results\.jsonl cannot be read"):
        json_records(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        json_records(tmp_path / "absent")


def test_outcomes_are_read_and_checked(tmp_path):
    record = write_folder(tmp_path, [(fake_record(n=12), 0.5)], images=False)[0]
    assert len(json_outcomes(tmp_path, record["id"])) == 12
    write_outcomes(tmp_path, record["id"], [{"id": "q", "score": "high"}])
    with pytest.raises(DataError, match=r"parquet:1: an outcome needs"):
        json_outcomes(tmp_path, record["id"])
    with pytest.raises(DataError, match="cannot be read"):
        json_outcomes(tmp_path, "absent")
