"""``headwise report A B``: the right trials meet, differences are paired, unlike things are not compared unasked."""

from __future__ import annotations

import csv
import json
import statistics

import pytest
from tests.lab.as_json import json_outcomes
from tests.lab.fake_kv import kv_record
from tests.lab.fake_records import fake_record, identity, write_folder, write_outcomes

from headwise.cli import main
from headwise_lab.stats.rule import holm

ASKED = "2b928b4c63935089"


def record(scoring="sum", heads="all", keep=16, *, questions=ASKED, **changes) -> dict:
    """A record with its questions' digest; anything else that changes gives it another id, as in real runs."""
    options = {key: changes.pop(key) for key in ("benchmark", "seed", "n", "pruning") if key in changes}
    made = fake_record(scoring, heads, keep, **options)
    return {**made, "questions": questions, **changes, "id": identity(made["id"], questions, str(changes))}


@pytest.fixture
def sides(tmp_path):
    """A and B: two benchmarks, two budgets; B has other versions and does better at 16 tokens on the first."""
    trials = [(benchmark, keep) for benchmark in ("one", "two") for keep in (48, 16)]
    a = [(record(keep=keep, benchmark=benchmark), 0.5) for benchmark, keep in trials]
    versions = {"headwise": "0.2.0", "torch": "2.13.0"}
    b = [
        (record(keep=keep, benchmark=benchmark, versions=versions), 0.85 if (benchmark, keep) == ("one", 16) else 0.5)
        for benchmark, keep in trials
    ]
    write_folder(tmp_path / "a", a, images=False)
    write_folder(tmp_path / "b", b, images=False)
    return tmp_path


@pytest.fixture
def compared(capsys):
    """Compare two folders of a place and read the JSON that is printed."""

    def call(place, *words, a="a", b="b") -> list[dict]:
        assert main(["report", str(place / a), str(place / b), "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def refusal(capsys, *words) -> str:
    assert main(["report", *map(str, words)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    return line


def test_trials_meet_by_what_they_were_asked_and_differ_by_their_outcomes(sides, compared):
    found = compared(sides)
    assert [(row["benchmark"], row["budget"]) for row in found] == [
        ("one", "keep=48"),
        ("one", "keep=16"),
        ("two", "keep=48"),
        ("two", "keep=16"),
    ]
    for row in found:
        ours, theirs = (
            {line["id"]: line["score"] for line in json_outcomes(sides / side, row[name][0])}
            for side, name in (("a", "left"), ("b", "right"))
        )
        assert row["difference"] == pytest.approx(100 * statistics.fmean(theirs[key] - ours[key] for key in ours))
        assert row["left_mean"] == pytest.approx(100 * statistics.fmean(ours.values()))
        assert row["discordant"] == [
            sum(theirs[key] > ours[key] for key in ours),
            sum(theirs[key] < ours[key] for key in ours),
        ]


def test_verdicts_follow_holms_correction_over_the_table(sides, compared):
    found = compared(sides)
    assert holm([row["p"] for row in found]) == [row["p_holm"] for row in found]
    assert [row["verdict"] for row in found] == ["no difference", "better", "no difference", "no difference"]
    assert found[1]["low"] > 0
    assert [row["verdict"] for row in compared(sides, a="b", b="a") if row["verdict"] != "no difference"] == ["worse"]


def test_the_terminal_shows_what_varies_and_names_what_sets_the_sides_apart(sides, capsys):
    assert main(["report", str(sides / "a"), str(sides / "b")]) == 0
    told = capsys.readouterr().out
    assert "Apart in every row, A → B: headwise version 0.1.0 → 0.2.0" in told
    assert "head_scoring=sum" in told.splitlines()[3]
    header = next(line for line in told.splitlines() if line.startswith("Benchmark"))
    assert header.split()[:9] == ["Benchmark", "Budget", "A", "B", "B", "-", "A", "±", "SE"]
    assert sum(line.rstrip().endswith("better") for line in told.splitlines()) == 1


@pytest.mark.parametrize("ending", [".md", ".csv", ".tex"])
def test_the_table_is_written_as_its_name_says_and_never_over_another(sides, ending, capsys):
    out = sides / f"table{ending}"
    assert main(["report", str(sides / "a"), str(sides / "b"), "--out", str(out)]) == 0
    text = out.read_text()
    if ending == ".csv":
        assert [row["Benchmark"] for row in csv.DictReader(text.splitlines())] == ["one", "one", "two", "two"]
    assert {".md": "| one | keep=16 |", ".csv": "one,keep=16,", ".tex": "one & keep=16 &"}[ending] in text
    capsys.readouterr()
    assert "is there already" in refusal(capsys, sides / "a", sides / "b", "--out", out)
    assert text == out.read_text()
    assert sorted(path.name for path in sides.iterdir()) == ["a", "b", out.name]


def test_folders_with_other_strategies_meet_by_benchmark_and_budget(tmp_path, capsys, compared):
    write_folder(tmp_path / "a", [(record(keep=keep), 0.5) for keep in (48, 16)], images=False)
    write_folder(tmp_path / "b", [(record("sharp", 4, keep), 0.9) for keep in (48, 16)], images=False)
    told = refusal(capsys, tmp_path / "a", tmp_path / "b")
    assert "differ in strategies; match by less, such as --by model,benchmark,settings,budget" in told
    found = compared(tmp_path, "--by", "benchmark,budget")
    assert [row["apart"]["head_scoring"] for row in found] == [["sum", "sharp"]] * 2
    assert [row["verdict"] for row in found] == ["better", "better"]


def test_a_match_that_could_mean_several_trials_is_refused(tmp_path, capsys, compared):
    write_folder(tmp_path / "a", [(record(), 0.5), (record("sharp", 4), 0.9)], images=False)
    write_folder(tmp_path / "b", [(record(), 0.5)], images=False)
    told = refusal(capsys, tmp_path / "a", tmp_path / "b", "--by", "benchmark,budget")
    assert "several trials of benchmark=made-up budget=keep=16 that differ in head_scoring, head_count;" in told
    one = record("sharp", 4)["id"]
    assert f"or name one trial as {tmp_path / 'a'}:{record()['id']}" in told
    (row,) = compared(tmp_path, "--by", "benchmark,budget", a=f"a:{one[:6]}")
    assert ([one], "worse") == (row["left"], row["verdict"])


def test_two_named_trials_meet_whatever_they_are(tmp_path, capsys, compared):
    first, second = record(), record("sharp", 4, 48)
    write_folder(tmp_path / "a", [(first, 0.5), (second, 0.9)], images=False)
    (row,) = compared(tmp_path, a=f"a:{first['id']}", b=f"a:{second['id']}")
    assert (row["benchmark"], row["apart"]["budget"]) == ("made-up", ["keep=16", "keep=48"])
    assert "holds no finished trial whose id begins with zz" in refusal(capsys, f"{tmp_path / 'a'}:zz", tmp_path / "a")


@pytest.mark.parametrize("changes", [{"weights": "feed" * 4}, {"questions": "beef" * 4}])
def test_other_questions_or_weights_are_refused_unless_allowed(tmp_path, changes, capsys, compared):
    write_folder(tmp_path / "a", [(record(), 0.5)], images=False)
    write_folder(tmp_path / "b", [(record(**changes), 0.9)], images=False)
    ((name, value),) = changes.items()
    told = refusal(capsys, tmp_path / "a", tmp_path / "b")
    assert f"have different {name} (" in told
    assert f" and {value});" in told
    (row,) = compared(tmp_path, "--allow-different")
    assert (60, value) == (row["n"], row["apart"][name][1])


def test_only_questions_that_are_equal_word_by_word_are_compared(tmp_path, compared):
    write_folder(tmp_path / "a", [(record(), 0.5)], images=False)
    write_folder(tmp_path / "b", [(record(questions="beef" * 4), 0.5)], images=False)
    path = next((tmp_path / "b" / "outcomes").iterdir())
    lines = json_outcomes(tmp_path / "b", path.stem)
    changed = [{**line, "answers": ["green"]} if number < 25 else line for number, line in enumerate(lines)]
    write_outcomes(tmp_path / "b", path.stem, changed)
    assert [row["n"] for row in compared(tmp_path, "--allow-different")] == [35]


def test_questions_of_another_seed_are_never_taken_for_the_same(tmp_path, capsys):
    write_folder(tmp_path / "a", [(record(), 0.5)], images=False)
    write_folder(tmp_path / "b", [(record(questions="beef" * 4, seed=1), 0.5)], images=False)
    told = refusal(capsys, tmp_path / "a", tmp_path / "b", "--allow-different")
    assert "have no question in common to compare" in told


def test_seeds_are_pooled_question_by_question(tmp_path, compared):
    for side, ability in (("a", 0.5), ("b", 0.7)):
        seeds = [(record(questions=f"{seed}" * 16, seed=seed), ability) for seed in (1, 2, 3)]
        write_folder(tmp_path / side, seeds, images=False)
    (row,) = compared(tmp_path)
    assert (row["n"], len(row["left"]), len(row["right"])) == (180, 3, 3)


def test_the_same_questions_are_never_counted_twice(tmp_path, capsys):
    write_folder(tmp_path / "a", [(record(seed=seed), 0.5) for seed in (1, 2)], images=False)
    told = refusal(capsys, tmp_path / "a", tmp_path / "a")
    assert "that differ in seed; add that to --by" in told


def test_trials_without_a_partner_or_without_outcomes_are_told(sides, capsys):
    first = json.loads((sides / "a" / "results.jsonl").read_text().splitlines()[0])
    (sides / "a" / "outcomes" / f"{first['id']}.parquet").unlink()
    extra = {**record("sharp", 4), "id": "extra"}
    with (sides / "b" / "results.jsonl").open("a") as stream:
        stream.write(json.dumps(extra) + "\n" + json.dumps({"id": "bad", "error": "it failed"}) + "\n")
    assert main(["report", str(sides / "a"), str(sides / "b"), "--json"]) == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 3
    assert f"1 of 5 trials of {sides / 'b'} match none of the other side." in told.err
    assert f"Record {first['id']} is compared with nothing" in told.err


def test_outcomes_that_belie_their_record_are_told(tmp_path, capsys):
    write_folder(tmp_path / "a", [(record(), 0.5)], images=False)
    path = tmp_path / "a" / "results.jsonl"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "metric": {**told["metric"], "value": 99.0}, "benchmark": "shapes-gqa"}) + "\n")
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "a")]) == 0
    assert "its record says 99.00" in capsys.readouterr().err


def test_texts_that_were_read_are_compared_by_loss_and_less_is_better(tmp_path, capsys, compared):
    for side, by in (("a", 0.0), ("b", -0.2)):
        read = kv_record("window:window=64", 64.0, n=400, metric={"name": "perplexity", "value": 7.0, "se": 1.0})
        read["nll"] = {"mean": 2.0, "se": 0.1}
        place = tmp_path / side
        lines = [{"id": str(i), "score": 2 + i / 50 + by * (0.5 + i % 2), "right": True} for i in range(400)]
        write_outcomes(place, read["id"], lines)
        (place / "results.jsonl").write_text(json.dumps(read) + "\n")
    (row,) = compared(tmp_path)
    assert (pytest.approx(row["difference"]), row["verdict"], row["test"]) == (-0.2, "better", "permutation")
    assert (row["n"], row["unit"]) == (27, "block of 15 consecutive tokens, which depend on each other")
    assert row["p"] == row["p_holm"] < 0.001
    changed = json.loads((tmp_path / "b" / "results.jsonl").read_text())
    changed["text"]["digest"] = "another"
    (tmp_path / "b" / "results.jsonl").write_text(json.dumps(changed) + "\n")
    assert "have different questions" in refusal(capsys, tmp_path / "a", tmp_path / "b")
    assert "no question in common" in refusal(capsys, tmp_path / "a", tmp_path / "b", "--allow-different")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "colour"], "--by 'colour' is nothing that trials of"),
        (["--out", "x.pdf"], "--out x.pdf is neither .html, .md, .csv nor .tex; the ending says what"),
    ],
)
def test_wrong_words_are_one_sentence(sides, words, message, capsys):
    assert message in refusal(capsys, sides / "a", sides / "b", *words)


def test_other_benchmarks_never_meet(tmp_path, capsys):
    write_folder(tmp_path / "a", [(record(benchmark="one"), 0.5)], images=False)
    write_folder(tmp_path / "b", [(record(benchmark="two"), 0.5)], images=False)
    assert "no trial of" in refusal(capsys, tmp_path / "a", tmp_path / "b", "--allow-different")
    told = refusal(capsys, f"{tmp_path / 'a'}:{record(benchmark='one')['id']}", f"{tmp_path / 'b'}:")
    assert "matches one of" in told


def test_a_name_without_an_ending_is_a_folder_for_every_file(sides, capsys):
    out = sides / "page"
    assert main(["report", str(sides / "a"), str(sides / "b"), "--out", str(out), "--title", "Before <and> after"]) == 0
    assert f"Wrote {out / 'report.html'} and 6 more files beside it." in capsys.readouterr().out
    figures = {f"figures/side-by-side-differences{ending}" for ending in (".png", ".svg", ".pdf")}
    assert {"report.html", "report.md", "tables/side-by-side.csv", "tables/side-by-side.tex", *figures} == {
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
    }
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h1>Before &lt;and&gt; after</h1>" in page
    (first,) = [line for line in (sides / "a" / "results.jsonl").read_text().splitlines() if '"keep=48"' in line][:1]
    assert f'id="r-A-{json.loads(first)["id"]}"' in page
    assert "(figures/side-by-side-differences.png)" in (out / "report.md").read_text()
    assert "is there already" in refusal(capsys, sides / "a", sides / "b", "--out", out)


def test_several_folders_are_each_held_against_the_first(sides, capsys):
    words = [str(sides / name) for name in ("a", "b", "a")]
    assert main(["report", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["right_folder"] for row in found] == [words[1]] * 4 + [words[2]] * 4
    assert [row["difference"] for row in found[4:]] == [0.0] * 4
    assert found[1]["difference"] > 0
    assert main(["report", *words, "--out", str(sides / "three.csv")]) == 0
    assert "A → C" not in capsys.readouterr().err
    text = (sides / "three.csv").read_text()
    assert text.count("B - A ± SE") == text.count("C - A ± SE") == 1


def test_one_html_file_holds_a_whole_comparison_with_its_failures(sides, capsys):
    with (sides / "b" / "results.jsonl").open("a") as stream:
        stream.write(json.dumps({"id": "bad", "error": "Traceback\nOutOfMemory: it was too much", "attempt": 3}) + "\n")
    out = sides / "page.html"
    assert main(["report", str(sides / "a"), str(sides / "b"), "--out", str(out)]) == 0
    assert f"Wrote {out}." in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert "Failures of B" in page
    assert "Failures of A" not in page
    assert "OutOfMemory: it was too much" in page
    assert "Traceback" not in page
    assert page.count("<svg viewBox=") == page.count('class="chart"') == 1


def test_options_of_a_comparison_are_refused_for_one_folder(sides, capsys):
    for words in (["--out", "x"], ["--by", "benchmark"], ["--allow-different"]):
        assert "belong to a comparison; give two folders or more" in refusal(capsys, sides / "a", *words)


def test_folders_behind_urls_are_reported_and_compared_like_local_ones(sides, capsys):
    from upath import UPath

    place = UPath("memory://reports/b")
    for path in (path for path in (sides / "b").rglob("*") if path.is_file()):
        (place / path.relative_to(sides / "b").as_posix()).write_bytes(path.read_bytes())
    assert main(["report", "memory://reports/b", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["html"] == "memory://reports/b/report.html"
    assert "<h1>Headwise report: b</h1>" in UPath(told["html"]).read_text()
    assert all(UPath(figure).exists() and UPath(figure).with_suffix(".svg").exists() for figure in told["figures"])
    assert main(["report", str(sides / "a"), "memory://reports/b", "--json"]) == 0
    behind = json.loads(capsys.readouterr().out)
    assert main(["report", str(sides / "a"), str(sides / "b"), "--json"]) == 0
    local = json.loads(capsys.readouterr().out)
    assert [{**row, "right_folder": ""} for row in behind] == [{**row, "right_folder": ""} for row in local]
