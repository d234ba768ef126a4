"""Tables: what stands beside every number, what is no study of heads, what things cost, and LaTeX that parses."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lab.compared import heads_in, methods_in
from tests.lab.fake_records import fake_record, study_a, trial_from, write_folder
from tests.lab.test_report_comparison import trial_of
from tests.lab.test_report_methods import lay, method

from headwise.errors import DataError
from headwise_lab.report.content import gather
from headwise_lab.report.heads.efficiency import efficiency
from headwise_lab.report.heads.references import judged, lower_is_better, references, rule
from headwise_lab.report.heads.tables import long_rows
from headwise_lab.report.page.grid import Grid, Mark, grid_csv
from headwise_lab.report.page.latex import latex
from headwise_lab.report.published.recount import recount
from headwise_lab.report.trials import Trial

laws = settings(deadline=None, max_examples=25, derandomize=True)


def texts(grid: Grid) -> list[dict[str, str]]:
    return [dict(zip(grid.header, (mark.text for mark in row), strict=True)) for row in grid.rows]


def test_every_cell_of_a_score_table_carries_all_that_is_known_of_it(tmp_path):
    write_folder(tmp_path, study_a(), images=False)
    (section,) = gather(tmp_path).sections
    (mark,) = [mark for mark in section.main.rows[0] if mark.data.get("method") == "sharp"]
    cell = heads_in(tmp_path)[0].rows[0].cells["sharp"]
    assert (mark.data["value"], mark.data["n"], mark.data["units"], mark.data["seeds"]) == (cell.value, 60, 60, 1)
    assert (mark.data["benchmark"], mark.data["budget"], mark.data["heads"]) == ("made-up", "keep 48 (64.0)", "4")
    base = cell.against_baseline
    expected = (base.value, base.se, base.low, base.high, 60, "McNemar", base.p, base.adjusted, 28, "better")
    keys = ("difference", "difference_se", "low", "high", "pairs", "test", "p", "adjusted_p", "family", "verdict")
    assert expected == tuple(mark.data[key] for key in keys)
    assert mark.data["to_random_adjusted_p"] == cell.against_control.adjusted
    assert (mark.data["record"], mark.data["command"]) == (cell.trials[0].id, "headwise run --strategy sharp")
    assert json.loads(json.dumps(mark.data)) == mark.data
    assert "after Holm's correction over the 28 comparisons of this table, is at most 0.05" in section.main.caption


def test_every_cell_of_a_table_of_methods_carries_all_that_is_known_of_it(tmp_path):
    lay(tmp_path)
    (methods,) = methods_in(tmp_path)
    grid = gather(tmp_path).sections[0].main
    (mark,) = [mark for mark in grid.rows[2] if mark.data.get("budget") == "tokens 48"]
    result = methods.results["cdpruner", "tokens 48"]
    assert (mark.data["method"], mark.data["adjusted_p"]) == ("cdpruner", result.adjusted)
    assert mark.data["to_unpruned_difference"] == result.to_unpruned.value
    assert mark.data["record"] == result.trial.id
    assert "adjusted over 16" in mark.hint


def test_the_csv_of_methods_has_figures_pairs_and_the_whole_record(tmp_path):
    lay(tmp_path)
    rows = list(csv.DictReader(io.StringIO(grid_csv(gather(tmp_path).sections[0].main))))
    (methods,) = methods_in(tmp_path)
    (row,) = [row for row in rows if (row["shown.method"], row["shown.budget"]) == ("dart", "tokens 32")]
    found = methods.results["dart", "tokens 32"].to_reference
    assert (float(row["shown.difference"]), float(row["shown.adjusted_p"])) == (found.value, found.adjusted)
    assert (row["strategies.token_pruning"], row["command"]) == ("dart:layer=2", "headwise run --strategy sum")
    assert len(rows) == 10


def test_the_csv_of_a_study_has_interval_probabilities_and_family(tmp_path):
    write_folder(tmp_path, study_a(keeps=(16,)), images=False)
    (comparison,) = heads_in(tmp_path)
    cell = comparison.rows[0].cells["dull"]
    (row,) = [row for row in long_rows(comparison) if (row["column"], row["row_heads"]) == ("dull", "4")]
    base, control = cell.against_baseline, cell.against_control
    assert (row["difference_low"], row["difference_high"]) == (base.low, base.high)
    assert (row["p"], row["adjusted_p"], row["family"]) == (base.p, base.adjusted, 14)
    assert row["adjusted_p_to_random"] == control.adjusted


def imported(name: str, cache: str | None, scores: list[float], metric: str = "acc", **more) -> Trial:
    """A record as `import-results` makes it."""
    strategies = {} if cache is None else {"kv_eviction": cache}
    trial = trial_of({**fake_record(study=None), "id": name, "strategies": strategies}, scores)
    record = {**trial.record.to_json(), "budget": {"given": f"cache {cache}"},
              "heads": {"of": None, "mean": None, "sd": None},
              "source": {"harness": "lm-eval", "task": "gsm"}, "benchmark": "gsm (lm-eval)", **more}  # fmt: skip
    return trial_from(record | {"metric": {**record["metric"], "name": metric}}, trial.units)


def test_imported_results_are_named_by_harness_task_and_strategy():
    window = imported("a", "streaming:sinks=4,window=60", [1.0] * 20)
    whole, other = imported("b", "none", [1.0] * 20), imported("c", None, [1.0] * 20, model="llava_hf")
    assert rule(window) == "lm-eval gsm: streaming:sinks=4,window=60"
    assert rule(whole) == "lm-eval gsm: full cache"
    assert rule(other) == "lm-eval gsm: unpruned"
    named = trial_from({**window.record.to_json(), "recipe": "sparsevlm"})
    assert rule(named) == "lm-eval gsm: sparsevlm"
    assert rule(trial_from(fake_record(pruning="uniform:layer=2"))) == "uniform:layer=2"
    assert rule(trial_from(fake_record(pruning="none"))) == "unpruned"


def test_an_evicting_run_is_paired_with_the_full_cache_on_the_same_documents():
    window = imported("a", "streaming:sinks=4,window=60", [0.0] * 15 + [1.0] * 25)
    whole, elsewhere = imported("b", "none", [1.0] * 40), imported("c", "none", [0.0] * 40, questions="other")
    found = {one.trial.id: one.to_unpruned for one in judged([window, whole, elsewhere])}
    assert (found["a"].value, found["a"].verdict, found["b"], found["c"]) == (-37.5, "worse", None, None)
    (row,) = [row for row in texts(references([window, whole])) if "streaming" in row["Rule"]]
    assert row["To unpruned, adjusted p"] == "< 0.0001"
    assert row["Score ± SE"].startswith("62.50 ±")


def test_a_loss_is_better_where_it_is_lower():
    higher = [0.01 * (5 + number % 7) for number in range(40)]
    window = imported("a", "streaming:sinks=4,window=60", higher, "bits_per_byte")
    whole = imported("b", "none", [score - 0.01 for score in higher], "bits_per_byte")
    (found,) = [one.to_unpruned for one in judged([window, whole]) if one.to_unpruned]
    assert (found.value > 0, found.verdict) == (True, "worse")
    assert "Lower is better: bits_per_byte" in references([window, whole]).caption
    names = {"word_perplexity": True, "acc": False, "pope_f1_score": False, "wer": True, "answer": False}
    assert names == {name: lower_is_better(imported("x", None, [1.0], name)) for name in names}


def test_rules_at_another_budget_than_all_heads_are_compared_with_the_unpruned_model_alone():
    scores = [1.0] * 30 + [0.0] * 10
    base, full = trial_of(fake_record(keep=16), scores), trial_of(fake_record(pruning="none", keep=None), [1.0] * 40)
    same = trial_of(fake_record(pruning="random:seed=0", keep=16), scores[::-1])
    other = trial_of(fake_record(pruning="random:seed=0", keep=4), scores[::-1])
    found = {(rule(one.trial), one.trial.budget): one for one in judged([base, full, same, other])}
    assert found["random:seed=0", "keep 16 (37.3)"].to_heads is not None
    assert found["random:seed=0", "keep 4 (27.3)"].to_heads is None
    assert found["random:seed=0", "keep 4 (27.3)"].to_unpruned.n == 40
    assert found["unpruned", "everything (144.0)"].to_heads is None


def costly(record: dict, cpu: str = "one", **cost) -> Trial:
    hardware = {"cpu": cpu, "threads": 1, "device": "cpu"}
    return trial_from({**record, "id": f"{record['id']}-{cpu}", "hardware": hardware, "cost": record["cost"] | cost})


def test_costs_are_told_by_strategy_budget_and_machine():
    measured = {
        "prefill_ms": 4.0, "prefill_share": 0.5, "selection_ms": 0.1, "flops_counted": 3e9,
        "flops_counted_unpruned": 1e10, "kv_bytes": 2_500_000, "kv_bytes_stored": 2_600_000, "peak_bytes": 3e8,
        "peak_source": "process memory",
    }  # fmt: skip
    seeds = [costly(fake_record("sharp", 4, seed=seed), **measured | {"prefill_ms": ms})
             for seed, ms in ((0, 4.0), (1, 2.0), (2, 9.0))]  # fmt: skip
    (row,) = texts(efficiency(seeds))
    assert (row["Strategy"], row["Budget"], row["Trials"]) == ("fastv:layer=2", "keep 16 (37.3)", "3")
    assert (row["Prefill ms"], row["Prefill share"], row["Selection ms"]) == ("4.00", "50.0%", "0.100")
    assert (row["Selection share"], row["FLOPs counted"]) == ("2.5%", "30.0%")
    assert (row["KV MB"], row["KV MB stored"], row["Peak MB"]) == ("2.5", "2.6", "300")
    assert row["Measured on"] == "one, 1 threads, batch 16"


def test_what_was_measured_on_two_machines_is_in_two_rows():
    trials = [costly(fake_record(), "one", prefill_ms=1.0), costly(fake_record(), "two", prefill_ms=100.0)]
    assert {(row["Measured on"][:3], row["Prefill ms"]) for row in texts(efficiency(trials))} == {
        ("one", "1.00"),
        ("two", "100.00"),
    }


def test_methods_measured_on_two_machines_have_two_rows_of_costs(tmp_path):
    records = [method("dart", 48, seed=seed, questions=f"{seed}") for seed in (0, 1)]
    records[1]["hardware"] = {"device": "a GPU"}
    write_folder(tmp_path, [(record, 0.5) for record in records], images=False)
    (section,) = gather(tmp_path).sections
    (grid,) = [grid for grid in section.grids if grid.slug.endswith("-costs")]
    assert [row["Measured on"] for row in texts(grid)] == ["a made-up CPU, batch 16", "a GPU, batch 16"]


def test_records_without_the_newer_cost_fields_have_dashes():
    (row,) = texts(efficiency([trial_from({**fake_record(), "cost": {}})]))
    assert {row[name] for name in ("KV MB stored", "Peak MB", "Selection ms", "Prefill ms", "FLOPs counted")} == {"-"}


def parsed(text: str) -> tuple[str, list[list[str]]]:
    """Column letters and cells of a tabular, read as TeX reads it: comments, escapes, groups, alignment marks."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    plain = re.sub(r"\$[^$]*\$", "", re.sub(r"\\[^a-zA-Z]", "", body))  # without escapes and formulas
    assert not set(plain) & set("#$%_^~")
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", body).group(1)
    inner = body.partition("\\toprule")[2].partition("\\bottomrule")[0]
    inner = inner.replace("\\midrule", "").replace("\\addlinespace", "")
    rows, cell, depth, place = [[]], "", 0, 0
    while place < len(inner):
        two = inner[place : place + 2]
        if two == "\\\\":
            assert depth == 0
            assert inner[place + 2 : place + 3] == "\n"  # nothing that TeX would take for the option of a line break
            rows[-1].append(cell.strip())
            rows.append([])
            cell, place = "", place + 2
        elif inner[place] == "\\":
            cell, place = cell + two, place + 2
        elif inner[place] == "&" and depth == 0:
            rows[-1].append(cell.strip())
            cell, place = "", place + 1
        else:
            depth += {"{": 1, "}": -1}.get(inner[place], 0)
            assert depth >= 0
            cell, place = cell + inner[place], place + 1
    assert (depth, cell.strip(), rows.pop()) == (0, "", [])
    assert not any(cell.startswith(("[", "*")) for row in rows for cell in row[:1])
    return columns, rows


@laws
@given(st.lists(st.lists(st.text(max_size=8), min_size=3, max_size=3), min_size=1, max_size=4), st.booleans())
def test_latex_of_any_text_parses_with_as_many_cells_as_columns(rows, bold):
    marks = [[Mark(text, bold=bold, verdict="same", recommended=True) for text in row] for row in rows]
    columns, found = parsed(latex(Grid.of("T%\n\\end", "t", ["a_b", "[c]", "$"], marks, "100 % of {it}")))
    assert len(columns) == 3
    assert [len(row) for row in found] == [3] * (len(rows) + 1)


def test_every_table_of_a_report_is_latex_that_parses(tmp_path):
    write_folder(tmp_path / "a", study_a(), images=False)
    lay(tmp_path / "b")
    grids = [grid for name in "ab" for grid in gather(tmp_path / name).grids()]
    assert {grid.slug for grid in grids} >= {"made-up", "made-up-differences", "references", "methods-made-up-costs"}
    for grid in grids:
        columns, rows = parsed(latex(grid))
        assert {len(row) for row in rows} == {len(columns)} == {len(grid.header)}


def test_latex_marks_every_best_figure_and_sets_groups_apart():
    rows = [
        ["x", Mark("1.0", bold=True, verdict="better", recommended=True), Mark("1.0", bold=True)],
        ["", Mark("-"), Mark("0.5", verdict="worse")],
        ["y", Mark("0.2", verdict="same"), Mark("1 → 2")],
    ]
    text = latex(Grid.of("T", "t", ["Token", "a", "b"], rows))
    assert r"\begin{tabular}{lrr}" in text
    assert r"x & \textbf{1.0}$^\uparrow$$^\star$ & \textbf{1.0} \\" in text
    assert r" & - & 0.5$^\downarrow$ \\" in text
    assert "\\addlinespace\ny & \\textcolor{gray}{0.2} & 1 $\\rightarrow$ 2 \\\\" in text


def test_a_csv_is_of_the_long_rows_where_a_grid_has_some():
    shown = Grid.of("T", "t", ["a"], [["1"]])
    assert grid_csv(shown) == "a\n1\n"
    assert grid_csv(Grid("T", "t", ("a",), (), long=({"a": 1}, {"b": "x,y"}))) == 'a,b\n1,\n,"x,y"\n'


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_a_share_of_nothing_is_missing(seconds):
    (row,) = texts(efficiency([costly(fake_record(), prefill_ms=seconds, selection_ms=0.1)]))
    assert row["Selection share"] == "-"


@pytest.mark.parametrize(
    "line",
    [
        "# " + " " * 3000 + "x",
        "# x" + " " * 3000 + "results" + " " * 3000 + "x",
        "#" * 3000,
        "- **a" + " " * 3000 + "x",
        "| 1" + " " * 3000 + "± |",
        "| " + "**" * 3000 + " |",
    ],
)
def test_no_line_of_a_table_to_recount_takes_long(tmp_path, line):
    """Patterns over such lines once took minutes; a hundred of each take no time now."""
    path = tmp_path / "table.md"
    path.write_text("\n".join([line] * 100))
    with pytest.raises(DataError, match="holds no score table"):
        recount(path, {})


def test_a_document_beyond_the_limits_is_a_sentence(tmp_path):
    path = tmp_path / "table.md"
    for text, told in (("x" * 20_000, "has 20000 letters"), ("1" * 41, "a number of more than 40 digits")):
        path.write_text(f"# A results\n{text}\n")
        with pytest.raises(DataError, match=f"table.md:2 .*{told}"):
            recount(path, {})
