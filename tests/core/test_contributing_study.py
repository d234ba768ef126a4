"""The study that CONTRIBUTING.md shows is planned, run, recorded and reported as ours are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from headwise.cli import main

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
(SOURCE,) = re.findall(r"^```python\n(# ranks\.py.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
WORDS = ["--recipe", "random", "--keep", "16", "--benchmarks", "shapes-gqa", "--limit", "2"]


@pytest.fixture
def ranks(install):
    install("zebra", "1.2", {"study": {"ranks": "ranks:study"}}, ranks=SOURCE)


def records(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def out(ranks, tmp_path):
    folder = tmp_path / "out"
    assert main(["ablate", "--study", "ranks:top=2", *WORDS, "--out", str(folder)]) == 0
    return folder


def test_it_is_run_recorded_and_reported(out, tmp_path):
    assert {record["study"] for record in records(out)} == {"ranks"}
    assert sorted(record["recipe"] for record in records(out)) == ["fastv", "random", "vanilla"]
    page = (out / "report.md").read_text()
    assert "## shapes-gqa: ranks\n\n| Recipe | Budget | Score |" in page
    assert (out / "tables" / "shapes-gqa-ranks.csv").read_text().count("\n") == 4  # three trials; top is 10 again
    assert 'id="shapes-gqa-ranks"' in (out / "report.html").read_text()
    (tmp_path / "own.toml").write_text(
        'study = "ranks"\nbenchmarks = ["shapes-gqa"]\nlimit = 2\nrecipes = ["random"]\nbudgets.keep = [16]\n'
    )
    assert main(["sweep", str(tmp_path / "own.toml"), "--out", str(tmp_path / "own"), "--workers", "0"]) == 0
    assert {record["id"] for record in records(tmp_path / "own")} == {record["id"] for record in records(out)}
    assert "## shapes-gqa: ranks" in (tmp_path / "own" / "report.md").read_text()


def test_its_records_are_shown_without_it_and_beside_a_broken_one(out, install, monkeypatch, capsys):
    from headwise_lab.report import studies

    known = studies.installed
    with monkeypatch.context() as without:
        without.setattr(studies, "installed", lambda group: {k: v for k, v in known(group).items() if k != "ranks"})
        assert main(["report", str(out)]) == 0
    assert "## Without head selection" in (out / "report.md").read_text()
    odd = "class Odd:\n    @property\n    def layout(self):\n        raise KeyError('lost')\n"
    install("emu", "0.1", {"study": {"odd": "odd:Odd"}}, odd=odd)
    install("yak", "0.1", {"study": {"torn": "torn:study"}}, torn="raise OSError('no such luck')\n")
    assert main(["report", str(out)]) == 0
    told = capsys.readouterr()
    assert re.search(r"Study 'odd' is left out.*emu 0\.1.*lost", told.out + told.err)
    assert re.search(r"Study 'torn' is left out.*yak 0\.1.*no such luck", told.out + told.err)
    assert "## shapes-gqa: ranks" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--study", "ranks:depth=3"], r"study 'ranks' \(zebra 1\.2\) has no option 'depth'; its options are top"),
        (
            ["--study", "ranks:top=many"],
            r"study 'ranks' \(zebra 1\.2\) refuses 'ranks:top=many': 'many' is not a",
        ),
        (["--study", "rank"], r"there is no study 'rank'; give a \(head scoring\).*ranks \(recipes by score\)"),
        (["--study", "ranks", "--scorer", "sum"], r"--scorer belongs to study b and means nothing in study ranks"),
    ],
)
def test_what_it_does_not_know_is_one_sentence(ranks, tmp_path, capsys, words, said):
    assert main(["ablate", *words, *WORDS, "--out", str(tmp_path / "o")]) == 2
    told = capsys.readouterr().err
    assert re.search(said, told)
    assert "Traceback" not in told
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def study():\n    return 3\n", r"study 'odd' lacks about, keys, layout"),
        ("def study():\n    raise SystemExit(0)\n", r"study 'odd' \(yak 0\.1\) failed on 'odd': SystemExit"),
    ],
)
def test_what_is_no_study_is_one_sentence(install, tmp_path, capsys, source, said):
    install("yak", "0.1", {"study": {"odd": "odd:study"}}, odd=source)
    assert main(["ablate", "--study", "odd", *WORDS, "--out", str(tmp_path / "o")]) == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "        trials = sorted(",
            "        trials = sorted(1, ",
            "3 records are not shown: the chapter of",
        ),
        (
            "        return Chapter(",
            "        return 3; Chapter(",
            "TypeError: wanted a Chapter of Sections, got 3",
        ),
        ("slug=table.slug,", "slug=table.slug, draw=print,", "has no figures: the chapter of study 'ranks' failed"),
    ],
)
def test_a_chapter_that_fails_is_told_with_its_study_and_loses_nothing(install, tmp_path, capsys, old, new, said):
    assert old in SOURCE
    source = SOURCE.replace(old, new).replace("draw=print", "draw=lambda folder: 1 / 0")
    install("yak", "0.1", {"study": {"ranks": "torn_ranks:study"}}, torn_ranks=source)
    assert main(["ablate", "--study", "ranks", *WORDS, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert re.search(rf"warning: .*{said}", told.err + told.out)
    assert len(records(tmp_path / "out")) == 3  # what was run stays
