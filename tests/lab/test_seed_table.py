"""Recounting score tables: the figures of LLaVA-FinePruner-Head, and small tables whose counts are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from headwise.errors import DataError
from headwise_lab.commands.report import report
from headwise_lab.report.published.recount import recount
from headwise_lab.report.published.recount_page import recount_lines

SEED = Path(__file__).parent / "data" / "seed_000_tables.md"


@pytest.fixture(scope="module")
def counted():
    return recount(SEED, {"TextVQA": 5000, "GQA": 12578})


def written(tmp_path, text: str) -> Path:
    path = tmp_path / "tables.md"
    path.write_text(text, encoding="utf-8")
    return path


def one_table(*rows: str, name: str = "Bench results") -> str:
    return "\n".join([f"## {name}", "", "| Token | Head | a | b | c |", "|---|---|---|---|---|", *rows, ""])


def test_seed_has_35_cells_and_234_filled_values(counted):
    assert (counted.cells, counted.filled, counted.missing) == (35, 234, 11)
    assert counted.missing_rows == ("POPE 128/8",)


def test_seed_wins_count_ties_for_each(counted):
    expected = {
        "sparsity": 13, "graph_based": 11, "top_k_sum": 4, "attention_range": 3, "hierarchical": 3,
        "max_attention": 2, "multi_objective": 1,
    }  # fmt: skip
    assert expected == counted.wins
    sole = {**expected, "sparsity": 12, "graph_based": 10, "attention_range": 2, "max_attention": 1}
    assert sole == counted.sole
    assert sum(counted.wins.values()) == 37


def test_seed_bold_marks_leave_one_side_of_each_tie_out(counted):
    assert sorted(counted.bold.values(), reverse=True) == [12, 11, 4, 3, 3, 1, 1]
    assert counted.ties == (
        "TextVQA 192/8: graph_based = sparsity",
        "POPE 192/8: attention_range = max_attention",
    )


def test_seed_wins_by_budget_and_by_heads(counted):
    assert counted.rows_by_token == {"192": 12, "128": 11, "64": 12}
    assert counted.rows_by_head == {"24": 12, "16": 12, "8": 11}
    assert (
        counted.by_token["192"]["sparsity"],
        counted.by_token["128"]["sparsity"],
        counted.by_token["64"]["graph_based"],
    ) == (7, 5, 9)
    assert counted.by_head["24"] == {"sparsity": 9, "graph_based": 3}
    assert (counted.by_head["8"]["graph_based"], counted.by_head["8"]["top_k_sum"]) == (6, 4)


def test_seed_claims_that_do_not_hold_are_named_and_no_others(counted):
    kinds = [
        "bold is graph_based, best is graph_based and sparsity",
        "bold is attention_range, best is attention_range and max_attention",
        "graph_based is said to be best in 10 rows, counted 11",
        "attention_range is said to be best in 2 rows, counted 3",
        "the stated wins add up to 35; 35 rows with ties counted for each give 37",
        "sparsity is said to win 3/4 at tokens = 128, 24 heads, counted 4/4",
        "top_k_sum is said to win 2/4 at tokens = 128, 8 heads, counted 2/3",
        "graph_based is said to win 6/9 at tokens ≤ 64, counted 9/12",
    ]
    assert len(kinds) == len(counted.differences)
    for kind, difference in zip(kinds, counted.differences, strict=True):
        assert kind in difference


def test_seed_gaps_are_mostly_below_one_binomial_error(counted):
    assert [(noise.table, noise.below, noise.rows) for noise in counted.noise] == [("TextVQA", 9, 9), ("GQA", 8, 9)]


def test_seed_has_neither_baseline_nor_control_and_the_recount_says_what_follows(counted):
    assert (counted.has_baseline, counted.has_control) == (False, False)
    lines = recount_lines(counted)
    assert "no all-heads `sum` baseline and no random-heads control, so no gain over FastV is established" in lines[-1]


def test_every_stated_best_configuration_of_the_seed_holds(counted):
    assert not [difference for difference in counted.differences if "best configuration" in difference]
    assert "POPE: Token=192, Head=16, Strategy=hierarchical → 77.15" in counted.peaks


def test_a_wrong_best_configuration_and_a_wrong_row_are_named(tmp_path):
    text = one_table("| **8** | 2 | **5.0** | 4.0 | - |", "|  | 1 | 3.0 | **6.0** | 6.0 |")
    text += (
        "\n- **Bench**: Token=8, Head=2, Strategy=a → 5.0\n\n#### Bench\n\n- **8/2**: b (4.0)\n- **8/1**: b/c (6.0)\n"
    )
    differences = recount(written(tmp_path, text)).differences
    assert len(differences) == 3
    assert "8/1: bold is b, best is b and c" in differences[0]
    assert "8/2: stated b, counted a" in differences[1]
    assert "said to be a at 8/2 with 5.0, counted b at 8/1 with 6.0" in differences[2]


def test_a_table_that_is_right_about_itself_is_told_so(tmp_path):
    text = one_table("| **8** | 2 | **5.0** | 4.0 | - |", "|  | 1 | 3.0 | **6.0** | **6.0** |")
    text += "\n- **a**: best in 1 of 2 rows\n- **b**: best in 1 of 2 rows\n- **c**: best in 1 of 2 rows\n"
    counted = recount(written(tmp_path, text))
    assert counted.differences == ()
    assert "The document's own counts agree with its figures." in recount_lines(counted)


def test_a_winner_left_out_of_the_stated_wins_is_named(tmp_path):
    text = one_table("| 8 | 2 | 5.0 | 4.0 | - |", "|  | 1 | 3.0 | 6.0 | 2.0 |") + "\n- **a**: best in 1 of 2 rows\n"
    assert "b is best in 1 rows and not named" in recount(written(tmp_path, text)).differences


def test_a_row_with_one_figure_has_no_winner(tmp_path):
    counted = recount(written(tmp_path, one_table("| 8 | 2 | - | 4.0 | - |", "|  | 1 | 3.0 | 2.0 | - |")))
    assert counted.wins == {"a": 1}


def test_baseline_and_control_columns_are_recognised(tmp_path):
    text = one_table("| 8 | 2 | 1.0 | 4.0 | 2.0 |").replace("| a | b |", "| sum (all heads) | random (control) |")
    counted = recount(written(tmp_path, text))
    assert (counted.has_baseline, counted.has_control) == (True, True)
    assert "baseline" not in "\n".join(recount_lines(counted))


def test_figures_may_be_percent_plain_or_with_an_error(tmp_path):
    counted = recount(written(tmp_path, one_table("| 8 | 2 | 57.52% | **57.53** ≈ | 57.51 ± 0.3 |")))
    assert counted.wins == {"b": 1}
    assert counted.differences == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing here\n", "holds no score table"),
        (one_table("| 8 | 2 | 1 | 2 |"), r"tables\.md:5: 4 cells in a table of 5 columns"),
        (one_table("| 8 | 2 | 1 | two | 3 |"), r"tables\.md:5: 'two' is neither a figure nor '-'"),
        (one_table("|  | 2 | 1 | 2 | 3 |"), r"tables\.md:5: the first row of Bench names no token budget"),
        (one_table("| 8 | 2 | 1 | 2 | 3 |").replace("| a | b |", "| a | a |"), "each named once"),
    ],
)
def test_a_malformed_table_is_one_sentence_with_file_and_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        recount(written(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_and_scores_that_are_no_shares_are_data_errors(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        recount(tmp_path / "absent.md")
    with pytest.raises(DataError, match="not in percent"):
        recount(SEED, {"MME": 2374})


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    rows=st.lists(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=3, max_size=3), min_size=1, max_size=6),
)
def test_wins_equal_a_brute_force_count(rows, tmp_path_factory):
    lines = [
        f"| {8 * (index + 1)} | 2 | " + " | ".join("-" if value is None else f"5{value}.0%" for value in row) + " |"
        for index, row in enumerate(rows)
    ]
    expected = {"a": 0, "b": 0, "c": 0}
    for row in rows:
        present = {name: value for name, value in zip("abc", row, strict=True) if value is not None}
        for name, value in present.items():
            beaten = [other for other, theirs in present.items() if theirs > value]
            expected[name] += not beaten and len(present) > 1
    path = written(tmp_path_factory.mktemp("tables"), one_table(*lines))
    counted = recount(path)
    assert {name: wins for name, wins in expected.items() if wins} == counted.wins
    assert sum(value is not None for row in rows for value in row) == counted.filled


def run(*arguments: str):
    application = typer.Typer()
    application.command()(report)
    return CliRunner().invoke(application, list(arguments))


def test_the_command_prints_the_recount_and_as_json_all_of_it():
    printed = run("--table", str(SEED), "--n", "TextVQA=5000,GQA=12578")
    assert printed.exit_code == 0
    assert "35 cells of benchmark x token x head, 234 filled values, 11 missing" in printed.stdout
    assert "TextVQA (n=5000): 9/9 rows" in printed.stdout
    told = json.loads(run("--table", str(SEED), "--json").stdout)
    assert told["wins"]["sparsity"] == 13


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of the two"),
        (("--table", str(SEED), "--n", "TextVQA"), "not of the form NAME=N"),
        (("--table", str(SEED), "--n", "TextVQA=0"), "not of the form NAME=N"),
        (("--table", str(SEED), "--n", "VQA=5"), "but the tables are TextVQA"),
    ],
)
def test_bad_arguments_are_data_errors(arguments, message):
    error = run(*arguments).exception
    assert isinstance(error, DataError)
    assert message in str(error)
