"""``headwise export``: what lies in a folder is what lies in the tables, in every format, damaged folders included."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest
from tests.lab.as_json import json_outcomes
from tests.lab.fake_kv import kv_record
from tests.lab.fake_records import fake_record, write_folder, write_outcomes

from headwise import DataError
from headwise.cli import main
from headwise_lab.exporting import Table
from headwise_lab.exporting.columns import OUTCOMES, TRIALS, common, fit, flat, kind_of
from headwise_lab.exporting.writers import targets
from headwise_lab.store.records import outcomes_path

FORMATS = ("csv", "parquet", "duckdb")


@pytest.fixture
def folder(tmp_path):
    """Two trials of twelve questions, one that failed, and one that read a text."""
    place = tmp_path / "run"
    write_folder(place, [(fake_record(n=12), 0.5), (fake_record("sharp", 4, n=12), 0.8)], images=False)
    failed = {"id": "bad", "benchmark": "made-up", "strategies": {"head_scoring": "x"}, "error": "ContractError: no"}
    read = {**kv_record("window:window=64", 64.0), "n": 2, "metric": {"name": "perplexity", "value": 7.0, "se": None}}
    write_outcomes(
        place, read["id"], [{"id": "1", "score": 2.5, "right": True}, {"id": "2", "score": 1, "right": False}]
    )
    append(place, *(json.dumps(record) + "\n" for record in (failed, read)))
    return place


def append(place, *lines: str):
    with (place / "results.jsonl").open("a") as stream:
        stream.writelines(lines)


def exported(folder, to, *words) -> None:
    assert main(["export", str(folder), "--to", to, "--out", str(folder.parent / "x"), *words]) == 0


def rows(place, to: str, table: str) -> list[dict]:
    """A table read back by somebody else's code; CSV has texts only."""
    if to == "csv":
        with (place / f"x-{table}.csv").open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    if to == "parquet":
        return pyarrow.parquet.read_table(place / f"x-{table}.parquet").to_pylist()
    with duckdb.connect(str(place / "x.duckdb"), read_only=True) as database:
        found = database.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.mark.parametrize("to", FORMATS)
def test_every_field_of_every_record_and_outcome_is_in_the_tables(folder, to, tmp_path):
    exported(folder, to)
    for table, lines in (("trials", lines_of(folder)), ("outcomes", answers_of(folder))):
        found = rows(tmp_path, to, table)
        assert len(lines) == len(found)
        for line, row in zip(lines, found, strict=True):
            told = {name: value for name, value in row.items() if value not in (None, "")}
            assert told == {name: cell(value, told.get(name)) for name, value in flat(line).items()}


def cell(value, like):
    """A value as a cell: lists and truths of CSV as JSON, numbers of CSV as the text at hand if that is the number."""
    if isinstance(value, list) or (isinstance(value, bool) and isinstance(like, str)):
        return json.dumps(value)
    return like if isinstance(like, str) and isinstance(value, int | float) and float(like) == value else value


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def answers_of(folder) -> list[dict]:
    found = []
    for record in lines_of(folder):
        lines = json_outcomes(folder, record["id"]) if outcomes_path(folder, record["id"]).exists() else []
        found += [{**line, "trial": record["id"]} for line in lines]
    return found


@pytest.mark.parametrize("to", FORMATS)
def test_documented_columns_come_first_and_others_follow_by_name(folder, to, tmp_path):
    append(folder, json.dumps({**fake_record("late", n=12), "zebra": 1, "added": {"b": 2.5, "a": "x"}}) + "\n")
    exported(folder, to)
    trials, outcomes = (list(rows(tmp_path, to, table)[0]) for table in ("trials", "outcomes"))
    assert list(TRIALS) == trials[: len(TRIALS)]
    assert trials[len(TRIALS) :] == ["added.a", "added.b", "metrics.accuracy/color", "timing.head_scoring", "zebra"]
    assert list(OUTCOMES) == outcomes


def test_documented_columns_are_typed_even_where_empty(folder, tmp_path):
    exported(folder, "parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "x-trials.parquet")
    assert [(name, str(schema.field(name).type)) for name in ("cost.prefill_share", "budget.kept", "refused")] == [
        ("cost.prefill_share", "double"),
        ("budget.kept", "int64"),
        ("refused", "string"),
    ]


def test_the_tables_join_and_give_the_records_own_figures(folder, tmp_path):
    exported(folder, "duckdb")
    with duckdb.connect(str(tmp_path / "x.duckdb"), read_only=True) as database:
        found = database.execute(
            'SELECT any_value("metric.value"), 100 * avg(score), avg(len(kept::INTEGER[])) FROM trials'
            " JOIN outcomes ON outcomes.trial = trials.id WHERE benchmark = 'made-up' GROUP BY trials.id"
        ).fetchall()
    assert len(found) == 2
    for told, counted, kept in found:
        assert told == pytest.approx(counted)
        assert kept == pytest.approx(16, abs=1)


def test_damaged_lines_are_warned_about_and_the_rest_is_exported(folder, tmp_path, capsys):
    good, other = (record["id"] for record in lines_of(folder)[:2])
    append(folder, "not json\n", '{"id": "../escape", "n": 1}\n', "[1]\n", '{"id": "torn", "n"')
    torn = outcomes_path(folder, good)
    torn.write_bytes(torn.read_bytes()[:-40])
    outcomes_path(folder, other).unlink()
    exported(folder, "csv")
    told = capsys.readouterr().err
    for number_ in (5, 6, 7):
        assert f"results.jsonl:{number_} " in told
    assert "The last line of results.jsonl is torn and was dropped" in told
    assert f"The outcomes of record {good} are torn and were left out." in told
    assert f"Record {other} has no outcomes." in told
    assert len(told.splitlines()) == 6
    assert len(rows(tmp_path, "csv", "trials")) == 4
    assert len(rows(tmp_path, "csv", "outcomes")) == 2


@pytest.mark.parametrize("to", FORMATS)
def test_values_of_the_wrong_kind_are_left_empty_and_said_so(folder, to, tmp_path, capsys):
    metric = {"name": "accuracy", "value": "high", "se": float("nan")}
    append(folder, json.dumps({**fake_record("odd"), "metric": metric, "n": 2**70, "seed": 3.0}) + "\n")
    exported(folder, to)
    told = capsys.readouterr().err
    for name in ("metric.value", "metric.se", "n"):
        assert f"'{name}' of record" in told
    last = rows(tmp_path, to, "trials")[-1]
    assert [last[name] in (None, "") for name in ("metric.value", "metric.se", "n", "seed")] == [True] * 3 + [False]


def test_of_records_with_one_id_the_last_counts(folder, tmp_path):
    first = lines_of(folder)[0]
    append(folder, json.dumps({**first, "study": "again"}) + "\n")
    exported(folder, "parquet")
    found = {row["id"]: row["study"] for row in rows(tmp_path, "parquet", "trials")}
    assert (len(found), found[first["id"]]) == (4, "again")


@pytest.mark.parametrize("to", FORMATS)
def test_texts_survive_quotes_lines_and_half_letters(folder, to, tmp_path):
    text = 'a "quoted",\nbroken; line — 汉字'
    append(folder, json.dumps({**fake_record("odd"), "command": text, "study": "\ud800"}) + "\n")
    exported(folder, to)
    last = rows(tmp_path, to, "trials")[-1]
    assert (text, "\\ud800") == (last["command"], last["study"])


def test_names_that_differ_in_letter_case_alone_are_two_columns_of_a_database(folder, tmp_path):
    append(folder, json.dumps({**fake_record("odd"), "metrics": {"ab": 1.0, "AB": 2.0, 'q"': 3.0}}) + "\n")
    exported(folder, "duckdb")
    last = rows(tmp_path, "duckdb", "trials")[-1]
    assert (last["metrics.AB"], last["metrics.ab~2"], last['metrics.q"']) == (2.0, 1.0, 3.0)


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_that_is_there_is_refused_unless_it_may_be_replaced(folder, to, tmp_path, capsys):
    exported(folder, to)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("x*")}
    assert main(["export", str(folder), "--to", to, "--out", str(tmp_path / "x")]) == 2
    assert "is there already; give --out another name, or --overwrite" in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("x*")}
    exported(folder, to, "--overwrite")


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_that_fails_leaves_nothing_behind(folder, to, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Table, "batches", full)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["export", str(folder), "--to", to, "--out", str(tmp_path / "x")]) == 2
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert before == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "to", "files"),
    [
        ("a.csv", "csv", ["a-outcomes.csv", "a-trials.csv"]),
        ("a.b", "parquet", ["a.b-outcomes.parquet", "a.b-trials.parquet"]),
        ("a", "duckdb", ["a.duckdb"]),
        ("new/a.db", "duckdb", ["a.db"]),
    ],
)
def test_files_are_called_after_what_was_given(folder, out, to, files, tmp_path):
    place = tmp_path / "out" / out
    assert main(["export", str(folder), "--to", to, "--out", str(place)]) == 0
    assert files == sorted(path.name for path in place.parent.iterdir())


def test_without_a_name_the_tables_lie_in_the_folder_itself(folder):
    assert main(["export", str(folder), "--to", "csv"]) == 0
    assert (folder / "export-trials.csv").exists()
    assert (folder / "export-outcomes.csv").exists()


def test_a_missing_package_is_one_sentence_and_parquet_needs_none(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["export", str(folder), "--to", "duckdb"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "headwise: --to duckdb needs duckdb: pip install 'headwise[export]', or give --to parquet"
    exported(folder, "parquet")


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, [], "results.jsonl cannot be read"),
        ("torn", [], "holds no whole record; there is nothing to export"),
        ("torn", ["--to", "xlsx"], "--to 'xlsx' is no format of an export; choose csv, parquet, duckdb"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(tmp_path, content, words, message, capsys):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    assert main(["export", str(tmp_path), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2], "integer"),
        ([1, 2.5], "real"),
        ([2**80], "real"),
        ([True, False], "boolean"),
        ([True, 1], "text"),
        ([1, "a"], "text"),
        ([[1]], "text"),
        ([float("nan"), 1], "integer"),
    ],
)
def test_other_columns_are_of_the_kind_that_holds_all_their_values(values, kind):
    assert kind == common(map(kind_of, values))
    finite = [value for value in values if str(value) != "nan"]
    cells = [fit(value, kind) for value in finite]
    assert finite == [json.loads(cell) if kind == "text" and cell != "a" else cell for cell in cells]
    assert fit(float("nan"), kind) is None


@pytest.mark.parametrize("to", ["parquet", "csv", "duckdb"])
@pytest.mark.parametrize("out", ["/", ".", "..", "a/.."])
def test_an_export_to_a_folder_without_a_name_is_one_sentence(out, to):
    with pytest.raises(DataError, match=r"is a folder; give the name of a file$"):
        targets(Path(out), to)
