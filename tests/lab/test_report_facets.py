"""What rows, columns and sentences are filtered by, and which records their numbers lead to."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.lab.fake_records import fake_record

from headwise.errors import DataError
from headwise_lab.benchmarks.inputs import squared
from headwise_lab.report.kept_tokens.pictures import shown
from headwise_lab.report.kept_tokens.views import bits
from headwise_lab.report.page.facets import NO_CHOICE, Facets, of_columns, of_record, of_rows, plain, union
from headwise_lab.report.page.grid import Grid, Mark
from headwise_lab.report.page.page_records import Book
from headwise_lab.report.page.page_tables import page_table
from headwise_lab.store.record_schema import record_of


def book(*records: dict) -> Book:
    return Book.of(map(record_of, records))


@pytest.mark.parametrize(
    ("record", "heads"),
    [
        (fake_record(), "all"),
        (fake_record("sharp", 4), "4"),
        (fake_record("sharp", "score_gap:at_least=2"), "score_gap"),
        (fake_record(pruning="random:seed=0"), NO_CHOICE),
        ({**fake_record("sharp", 4), "error": "no"}, "4"),
    ],
)
def test_a_record_is_of_its_benchmark_budget_heads_and_model(record, heads):
    assert Facets(("made-up",), ("keep 16",), (heads,), ("demo-llava",)) == of_record(record_of(record))


def test_rows_are_of_their_labels_else_of_the_records_their_numbers_come_from():
    base, sharp = fake_record(), fake_record("sharp", 4)
    known = book(base, sharp).facets
    grid = Grid.of(
        "T", "t", ["Token", "Head", "a", "b"],
        [
            [Mark("keep 16 (37.3)", bold=True), "4", Mark("1", anchor=base["id"]), Mark("2", anchor=sharp["id"])],
            ["", "-", Mark("3", anchor=sharp["id"]), "-"],
            ["", "", "-", "-"],
        ],
    )  # fmt: skip
    around = Facets(benchmark=("made-up",), model=("demo-llava",))
    found = of_rows(grid, known, around)
    assert [one.budget for one in found] == [("keep 16",)] * 3
    assert [one.heads for one in found] == [("4",), ("4",), ()]
    assert {one.benchmark for one in found} == {("made-up",)}


def test_columns_named_by_a_budget_are_of_it_and_so_is_what_follows():
    known = book(fake_record(keep=16), fake_record(keep=48)).facets
    grid = Grid.of("T", "t", ["Method", "Before layer", "keep 48", "prefill", "keep 16", "prefill"], [])
    found = of_columns(grid, known)
    assert [facets.budget for facets in found] == [(), (), ("keep 48",), ("keep 48",), ("keep 16",), ("keep 16",)]


@given(st.lists(st.builds(Facets, *[st.lists(st.sampled_from("abc"), max_size=3).map(tuple)] * 4), max_size=4))
def test_a_union_holds_every_value_once(several):
    joined = union(several)
    for kind in ("benchmark", "budget", "heads", "model"):
        values = [value for one in several for value in getattr(one, kind)]
        assert set(getattr(joined, kind)) == set(values)
        assert len(getattr(joined, kind)) == len(set(values))


@pytest.mark.parametrize(
    ("label", "value"), [("keep 16 (37.3)", "keep 16"), ("tokens=48", "tokens 48"), ("knee:x=1", "knee"), ("4", "4")]
)
def test_labels_are_filtered_by_without_options_and_means(label, value):
    assert value == plain(label)


def test_numbers_without_records_of_their_own_take_those_of_their_row():
    base, sharp = fake_record(), fake_record("sharp", 4)
    grid = Grid.of(
        "T", "t", ["Budget", "Method", "A", "B", "C"],
        [["keep 16", Mark("x", anchor=base["id"]), "1.5", Mark("+2 ± 1", records=(base["id"], sharp["id"])), "-"]],
    )  # fmt: skip
    (row,) = page_table(grid, book(base, sharp), Facets()).rows
    assert [cell.linked for cell in row.cells] == ["", "", base["id"], sharp["id"], ""]
    assert [cell.records for cell in row.cells][2:4] == ["", f"{base['id']} {sharp['id']}"]
    assert row.records == base["id"]


def test_a_label_that_repeats_is_filled_in_so_that_rows_may_be_sorted():
    grid = Grid.of("T", "t", ["Token", "Head"], [["keep 16", "4"], ["", "2"], ["keep 8", "4"]])
    rows = page_table(grid, book(fake_record()), Facets()).rows
    assert [(row.cells[0].mark.text, row.cells[0].again) for row in rows] == [
        ("keep 16", False),
        ("keep 16", True),
        ("keep 8", False),
    ]


@given(st.integers(1, 24).flatmap(lambda side: st.tuples(st.just(side), st.sets(st.integers(0, side * side - 1)))))
def test_kept_tokens_travel_as_bits(drawn):
    side, kept = drawn
    text = bits(sorted(kept), side * side)
    found = [8 * place + bit for place, byte in enumerate(base64.b64decode(text)) for bit in range(8)
             if byte & (128 >> bit)]  # fmt: skip
    assert found == sorted(kept)


def test_a_picture_is_whole_and_its_tokens_lie_where_the_model_sees_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    centre = shown(tmp_path / "wide.png", [(10, 0, 30, 20)], (4, 4), padded=False)
    assert np.array_equal(np.asarray(centre.image), pixels)
    assert centre.tile.box == (10, 0, 50, 40)
    data = centre.as_data()
    assert data.pop("uri").startswith("data:image/webp;base64,")
    assert data == {"width": 100, "height": 66.667, "box": [16.667, 0, 83.333, 66.667], "small": True}
    bordered = shown(tmp_path / "wide.png", [(10, 0, 30, 20)], (4, 4), padded=True)
    left, top, right, bottom = bordered.tile.box
    boxes, size = squared([(10, 0, 30, 20)], (60, 40))  # as recall is counted
    assert (right - left, bottom - top) == size
    assert boxes == [(10 - left, 0 - top, 30 - left, 20 - top)]
    (tmp_path / "none.png").write_text("no picture")
    with pytest.raises(DataError, match="is not an image that can be read"):
        shown(tmp_path / "none.png", [], (4, 4), padded=False)


def test_strategies_are_rows_of_a_page_and_know_the_columns_in_which_they_stand():
    base, sharp = fake_record(), fake_record("sharp", 4)
    grid = Grid.of(
        "T", "t", ["Token", "Head", "sum", "sharp"],
        [
            [Mark("keep 16 (37.3)", bold=True), "4", Mark("1", anchor=base["id"]), Mark("2", anchor=sharp["id"])],
            ["", "2", Mark("1", anchor=base["id"]), "-"],
            ["keep 8 (9.1)", "own count (3.6)", Mark("7", anchor=base["id"]), "8"],
        ],
    )  # fmt: skip
    table = page_table(grid, book(base, sharp), Facets())
    assert table.grid.header == ("Strategy", "keep 16 (37.3), 4 heads", "keep 16 (37.3), 2 heads",
                                 "keep 8 (9.1), own count (3.6) heads")  # fmt: skip
    assert [(facets.budget, facets.heads) for facets in table.columns] == [
        ((), ()), (("keep 16",), ("4",)), (("keep 16",), ("2",)), (("keep 8",), ("own count",)),
    ]  # fmt: skip
    assert [[cell.mark.text for cell in row.cells] for row in table.rows] == [
        ["sum", "1", "1", "7"], ["sharp", "2", "-", "8"],
    ]  # fmt: skip
    assert [dict(row.facets)["heads"] for row in table.rows] == ["4\n2\nown count", "4\nown count"]
    assert table.rows[1].cells[3].linked == base["id"]  # a number without records comes from its row's
