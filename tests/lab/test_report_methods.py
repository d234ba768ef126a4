"""Comparisons of whole methods: what is paired with what, which order, which words, and what a reader gets."""

from __future__ import annotations

import io
import json
import math
import re
import statistics

import attrs
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.lab.compared import methods_in
from tests.lab.fake_records import fake_record, identity, write_folder

from headwise_lab.report import build
from headwise_lab.report.content import gather
from headwise_lab.report.methods.console import methods_table
from headwise_lab.report.methods.figures import looks
from headwise_lab.report.methods.tables import shares
from headwise_lab.report.page.canvas import GREY

LAYERS = {"fastv": 2, "dart": 2, "pdrop": 3, "cdpruner": 0, "random": 0, "uniform": 0}
REASON = "tokens=32 cannot be met when pruning before layers 3, 6; the nearest feasible budget is tokens=36.75"


def method(name, tokens, benchmark="made-up", *, share=0.6, **changes):
    """A record of one method; vanilla where there is no budget."""
    unpruned = tokens is None
    pruning = "none" if unpruned else f"{name}:layer={LAYERS[name]}"
    record = fake_record(pruning=pruning, keep=None, benchmark=benchmark, study="methods")
    budget = {"given": "everything" if unpruned else f"tokens={tokens}", "processed": float(tokens or 144)}
    cost = record["cost"] | {"prefill_ms": 5 * share, "prefill_unpruned_ms": 5.0, "prefill_share": share}
    return {
        **record,
        "id": identity(name, tokens, benchmark, json.dumps(changes)),
        "recipe": "vanilla" if unpruned else name,
        "budget": record["budget"] | budget | {"kept": tokens or 144},
        "stages": [] if unpruned else [{"layer": LAYERS[name], "keep": tokens, "merged": 0}],
        "questions": "feedbeef",
        "cost": cost,
        **changes,
    }


def refusal(name, tokens, benchmark="made-up"):
    whole = method(name, tokens, benchmark)
    head = {key: whole[key] for key in ("id", "study", "model", "weights", "strategies", "settings")}
    more = {"recipe": name, "benchmark": benchmark, "questions": "feedbeef"}
    return {**head, **more, "budget": {"given": f"tokens={tokens}"}, "refused": REASON, "command": "headwise run"}


def study(benchmarks=("made-up",)):
    """Records with abilities: cdpruner beats fastv, random loses, dart differs by noise, pdrop meets one budget."""
    trials = []
    for benchmark in benchmarks:
        trials.append((method("vanilla", None, benchmark, share=1.0), 0.9))
        for tokens, base in ((48, 0.7), (32, 0.5)):
            trials.append((method("fastv", tokens, benchmark, share=0.5), base))
            trials.append((method("random", tokens, benchmark, share=0.3), base - 0.35))
            trials.append((method("cdpruner", tokens, benchmark, share=0.4), base + 0.25))
            trials.append((method("dart", tokens, benchmark), base))
        trials.append((method("pdrop", 48, benchmark, share=0.8), 0.8))
    return trials


def lay(folder, benchmarks=("made-up",)):
    records = write_folder(folder, study(benchmarks), images=False)
    refused = [refusal("pdrop", 32, benchmark) for benchmark in benchmarks]
    with (folder / "results.jsonl").open("a") as lines:
        lines.writelines(json.dumps(record) + "\n" for record in refused)
    return records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("methods")
    lay(path)
    return path


@pytest.fixture(scope="module")
def methods(folder):
    (found,) = methods_in(folder)
    return found


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    path = tmp_path_factory.mktemp("several")
    lay(path, ("first", "second"))
    return build(path, "Published methods")


def test_the_reference_comes_first_then_the_best_and_controls_last(methods):
    assert methods.names == ("fastv", "cdpruner", "dart", "pdrop", "random")
    assert methods.budgets == ("tokens 48", "tokens 32")


def test_differences_are_paired_by_question_with_fastv_at_the_same_budget(methods):
    for budget in methods.budgets:
        ours, theirs = (methods.results[name, budget].trial.units for name in ("dart", "fastv"))
        gaps = [ours[unit] - theirs[unit] for unit in theirs]
        found = methods.results["dart", budget].to_reference
        assert pytest.approx(statistics.fmean(gaps)) == found.value
        assert pytest.approx(statistics.stdev(gaps) / math.sqrt(60)) == found.se
    assert methods.results["fastv", "tokens 48"].to_reference is None


def test_differences_to_the_unpruned_model_are_paired_too(methods):
    ours, theirs = methods.results["fastv", "tokens 32"].trial.units, methods.unpruned.units
    gap = statistics.fmean(ours[unit] - theirs[unit] for unit in theirs)
    assert pytest.approx(gap) == methods.results["fastv", "tokens 32"].to_unpruned.value


def test_verdicts_follow_the_probabilities_corrected_over_the_whole_table(methods):
    verdicts = {name: [result.verdict for result in methods.of(name)] for name in methods.names}
    assert verdicts["fastv"] == ["", ""]
    assert verdicts["cdpruner"] == ["better", "better"]
    assert verdicts["dart"] == ["same", "same"]
    assert verdicts["random"] == ["worse", "worse"]
    pairs = methods.family()
    assert len(pairs) == 16  # 7 to fastv, 9 to the unpruned model
    ranked = sorted(pair.p for pair in pairs)
    for pair in pairs:
        adjusted = max(min(1.0, ranked[k] * (16 - k)) for k in range(16) if ranked[k] <= pair.p)
        assert (pytest.approx(adjusted), 16) == (pair.adjusted, pair.family)
    sure = methods.results["cdpruner", "tokens 48"]
    unsure = attrs.evolve(sure, to_reference=attrs.evolve(sure.to_reference, adjusted=0.2))
    assert (sure.certain, sure.verdict, unsure.certain, unsure.verdict) == (True, "better", False, "same")


def test_the_best_of_a_budget_is_marked_once(methods):
    assert {(result.name, result.budget) for result in methods.results.values() if result.best} == {
        ("cdpruner", "tokens 48"),
        ("cdpruner", "tokens 32"),
    }


def test_findings_say_what_is_better_worse_and_open(folder):
    first, second, third, *_ = gather(folder).findings
    assert first.startswith("Methods, made-up, tokens 48: better than fastv: cdpruner (+")
    assert "; worse: random (-" in first
    assert first.endswith("; no difference: 1 of 4.")
    assert second == "Methods, made-up, tokens 48: no difference to the unpruned model: cdpruner, pdrop."
    assert third.startswith("Methods, made-up, tokens 32: better than fastv: cdpruner (+")


def test_the_conclusion_counts_comparisons_and_says_what_could_be_seen(paths):
    (told,) = paths.content.conclusions
    better, worse, rest = told.split(". ")
    assert better == "Better than fastv at the same budget, and never worse: cdpruner (4 of 4) and pdrop (1 of 2)"
    assert worse == "Worse than fastv at the same budget, and never better: random (4 of 4)"
    assert re.match(
        r"No difference in 5 of 14 comparisons \(a typical comparison here could have seen a true difference of about",
        rest,
    )
    assert f'<p class="conclusion">{told}</p>' in paths.html.read_text(encoding="utf-8")


def test_the_conclusion_of_one_benchmark_without_gains_says_so(tmp_path):
    trials = [(method(name, 48), 0.7) for name in ("fastv", "dart", "pdrop")]
    write_folder(tmp_path, trials, images=False)
    (told,) = gather(tmp_path).conclusions
    assert told.startswith(
        "No method is better or worse than fastv at the same budget: no difference in 2 of 2 comparisons (a typical"
        " comparison here could have seen a true difference of about"
    )
    write_folder(tmp_path, trials[1:], images=False)
    assert gather(tmp_path).conclusions == [
        "Nothing is compared with fastv: its runs do not tell what it does at the budgets of the others."
    ]


def test_methods_are_no_part_of_studies_of_heads(folder):
    content = gather(folder)
    assert not any(section.heading for section in content.sections)
    assert [grid.slug for grid in content.closing] == [
        "methods-not-run",
        "failures",
    ]  # where the refusal is listed with its command
    assert content.count == 10


def test_a_method_that_refuses_a_budget_is_listed_with_its_reason_and_no_failure(folder):
    content = gather(folder)
    refusals, _ = content.closing
    assert [[mark.text for mark in row] for row in refusals.rows] == [["pdrop", "tokens 32", REASON]]
    main = content.sections[0].main
    (row,) = [row for row in main.rows if row[0].text == "pdrop"]
    assert row[-1].text == "-"


def test_one_name_for_two_things_is_told_apart(tmp_path):
    compact = fake_record()["settings"] | {"positions": "compact"}
    two = [(method("dart", 48), 0.7), (method("dart", 48, settings=compact), 0.7)]
    write_folder(tmp_path, [(method("fastv", 48), 0.7), *two], images=False)
    (found,) = methods_in(tmp_path)
    assert set(found.names) == {"fastv", "dart (positions=keep)", "dart (positions=compact)"}


def test_of_two_versions_of_a_method_only_the_difference_is_told(tmp_path):
    texts = method("dart", 48)["strategies"]
    trials = [(method("dart", 48, strategies=texts | {"token_pruning": f"dart:pivots={n}"}), 0.7) for n in (4, 8)]
    write_folder(tmp_path, [(method("fastv", 48), 0.7), *trials], images=False)
    (found,) = methods_in(tmp_path)
    assert set(found.names) == {"fastv", *(f"dart (token_pruning=dart:pivots={n})" for n in (4, 8))}


def test_other_questions_make_another_table(tmp_path):
    write_folder(tmp_path, [(method("fastv", 48), 0.7), (method("fastv", 48, questions="cafe0000"), 0.7)], images=False)
    titles = [one.title for one in methods_in(tmp_path)]
    assert titles == ["Methods, made-up, questions feedbeef", "Methods, made-up, questions cafe0000"]


def test_the_mean_share_is_over_benchmarks_and_its_error_that_of_the_pairs(tmp_path):
    lay(tmp_path, ("first", "second"))
    compared = methods_in(tmp_path)
    (found,) = [one for one in shares(compared) if (one.name, one.budget) == ("dart", "tokens 48")]
    results = [(one.results["dart", "tokens 48"], one.unpruned) for one in compared]
    assert pytest.approx(statistics.fmean(100 * one.trial.value / whole.value for one, whole in results)) == found.value
    errors = [one.to_unpruned.se / whole.value for one, whole in results]
    assert pytest.approx(100 * math.hypot(*errors) / 2) == found.se
    assert found.prefill == 0.6


def test_without_an_unpruned_model_nothing_is_a_share_of_it(tmp_path):
    trials = [trial for trial in study(("first", "second")) if trial[0]["recipe"] != "vanilla"]
    write_folder(tmp_path, trials, images=False)
    content = gather(tmp_path)
    assert shares(methods_in(tmp_path)) == []
    assert [section.slug for section in content.sections] == ["methods-first", "methods-second"]


def test_everything_is_written(paths):
    assert [path.name for path in paths.figures] == [
        "methods-scores.png", "methods-prefill.png",
        *(f"methods-{one}-{kind}.png" for one in ("first", "second") for kind in ("scores", "differences", "prefill")),
    ]  # fmt: skip
    names = {path.name for path in paths.tables}
    for slug in ("methods-overview", "methods-not-run", *(f"methods-first{end}" for end in ("", "-costs", "-kept"))):
        assert {f"{slug}.csv", f"{slug}.tex"} <= names
    for path in paths.figures:
        with Image.open(path) as figure:
            assert len(np.unique(np.asarray(figure.convert("L")))) > 50


def test_a_method_looks_the_same_in_every_figure_and_like_no_other(folder):
    compared = methods_in(folder)
    found = looks(compared)
    assert found == looks([attrs.evolve(one, names=tuple(reversed(one.names))) for one in compared])
    assert len(set(found.values())) == len(found) == 5
    assert {name for name, (colour, _) in found.items() if colour == GREY} == {"random"}


def test_pages_have_tables_figures_refusals_and_how_to_read_them(paths):
    markdown, html = (path.read_text(encoding="utf-8") for path in (paths.markdown, paths.html))
    for page in (markdown, html):
        assert "Methods over all benchmarks" in page
        assert "Score in per cent of the unpruned model" in page
        assert REASON in page
        assert "vision tower included" in page
        assert "correction over the 16 comparisons of this table, is at most 0.05" in page
        assert "Strategies are held against `sum` over all heads" not in page  # that is of other studies
    assert "![Mean score over first, second" in markdown
    assert html.count("<svg viewBox=") == 8
    assert '<a href="#methods-overview">' in html


def test_the_terminal_shows_every_method_and_budget(folder):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(methods_table(methods_in(folder)))
    told = console.export_text()
    for name in ("unpruned", "fastv", "cdpruner", "pdrop", "random"):
        assert name in told
    assert told.count("dart") == 2
