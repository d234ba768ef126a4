"""Outcomes as Parquet: what comes back is what was put in, to the last type, whatever the rows look like."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from io import BytesIO

import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from headwise import DataError
from headwise_lab.store.outcomes import count, decode, encode

NUMBERS = st.integers(-(2**70), 2**70) | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(st.characters(), max_size=5)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.", max_size=2), inner, max_size=2)
)
ROWS = st.lists(
    st.fixed_dictionaries({"id": st.text("xyz", max_size=3)}, optional=dict.fromkeys(("a", "b", "a.b", ""), VALUES)),
    min_size=1,
    max_size=6,
)


def exact(rows) -> str:
    """Equal where values and their types are: 1, 1.0 and true differ here."""
    return json.dumps(rows, sort_keys=True)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(rows=ROWS)
@example(rows=[{"id": "0", "a": []}, {"id": "1", "a": []}])
@example(rows=[{"id": "0", "a": None}, {"id": "1"}])
@example(rows=[{"id": "0", "a": 1}, {"id": "1", "a": 2.5}, {"id": "2", "a": True}])
@example(rows=[{"id": "0", "a": [[0.5, 1.0], []]}, {"id": "1", "a": []}, {"id": "2", "a": None}])
@example(rows=[{"id": "0", "a": [1, None]}, {"id": "1", "a": [0.0, -0.0]}])
@example(rows=[{"id": "0", "a": "\ud800", "b": 2**63}, {"id": "1", "a": "\x00", "b": -(2**63)}])
@example(rows=[{"id": "0", "a": {}}, {"id": "1", "a": {"b": []}}])
def test_any_json_comes_back_exactly(rows):
    content = encode(rows)
    assert exact(rows) == exact(decode(content, "here"))
    assert len(rows) == count(content, "here")


def test_fields_of_one_kind_are_columns_that_other_programs_read():
    rows = [
        {"id": "a", "score": 0.5, "n": 3, "right": True, "kept": [1, 2], "boxes": [[0.0, 1.0]], "recall": None},
        {"id": "b", "score": 1.0, "n": 4, "right": False, "kept": [], "boxes": [], "recall": 0.25},
    ]
    table = parquet.read_table(BytesIO(encode(rows)))
    assert rows == table.to_pylist()
    assert {field.name: str(field.type).replace("element", "item") for field in table.schema} == {
        "id": "string", "score": "double", "n": "int64", "right": "bool", "kept": "list<item: int64>",
        "boxes": "list<item: list<item: double>>", "recall": "double",
    }  # fmt: skip


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode([{"id": "a", "score": float("nan")}])
    with pytest.raises(ValueError, match="without any field"):
        encode([{}, {}])


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: whole[1:], lambda _: b"", lambda _: b"PAR1"]
)
def test_a_file_that_is_not_whole_is_one_sentence(damage):
    content = damage(encode([{"id": str(i), "score": 0.5} for i in range(9)]))
    with pytest.raises(DataError, match=r"^aa\.parquet is torn, or headwise did not write it; run the trial again$"):
        decode(content, "aa.parquet")


@pytest.mark.parametrize(
    "values",
    [[b"a", b"b"], [float("nan"), 0.5], [[1.0], [float("inf")]], [datetime(2026, 1, 1)] * 2, [[b"a"], None]],
)
def test_cells_that_are_no_json_are_not_taken_for_outcomes(values):
    content = BytesIO()
    parquet.write_table(pyarrow.table({"score": values}), content)
    with pytest.raises(DataError, match="is torn, or headwise did not write it"):
        decode(content.getvalue(), "aa.parquet")


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]"])
def test_constants_that_are_no_json_are_not_taken_for_outcomes(text):
    field = pyarrow.field("score", pyarrow.string(), metadata={b"headwise": b"json"})
    content = BytesIO()
    parquet.write_table(pyarrow.table([[text]], schema=pyarrow.schema([field])), content)
    with pytest.raises(DataError, match="is torn, or headwise did not write it"):
        decode(content.getvalue(), "aa.parquet")


def test_every_cut_of_a_file_is_noticed_by_its_end():
    content = encode([{"id": str(i), "score": i / 3, "kept": [i]} for i in range(9)])
    for size in range(0, len(content), 37):
        with pytest.raises(DataError):
            count(content[:size], "here")


def test_the_command_line_starts_without_pyarrow():
    assert "pyarrow" not in _imported(
        "import headwise_lab.store.output_folder, headwise_lab.sweeps.status, headwise_lab.store.records"
    )


def _imported(code: str) -> set[str]:
    import subprocess

    told = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(told.stdout.split())
