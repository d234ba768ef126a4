"""The report as a reader gets it: Markdown, CSV, LaTeX, one HTML page, figures, and the table on the terminal."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from rich.console import Console
from tests.lab.compared import heads_in
from tests.lab.fake_records import fake_record, study_a, write_folder
from typer.testing import CliRunner

from headwise.budget import prefill_flops
from headwise.errors import DataError
from headwise.families import shape
from headwise_lab.commands.report import report
from headwise_lab.report import build
from headwise_lab.report.content import gather
from headwise_lab.report.heads.comparison import compare_heads
from headwise_lab.report.heads.console import heads_table
from headwise_lab.report.page.grid import Grid, Mark, markdown
from headwise_lab.report.page.latex import latex
from headwise_lab.report.published.recount import recount
from headwise_lab.report.trials import Trial
from headwise_lab.store.record_schema import record_of

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Open tags are closed in order; collects links, ids, what scripts hold, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs).get("type") or "", ""))

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            kind, before = self.scripts.pop()
            self.scripts.append((kind, before + data))
        else:
            self.text.append(data)

    @property
    def links(self) -> list[str]:
        """Places on the page that are linked to."""
        return [link[1:] for link in self.values("href") if link.startswith("#")]

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]

    @property
    def data(self) -> dict:
        """What the page knows of its records."""
        return json.loads(next(text for kind, text in self.scripts if "labels" in text and kind == "application/json"))

    def fact(self, identity: str, label: str) -> str:
        value = self.data["records"][identity][self.data["labels"].index(label)]
        return self.data["texts"][value] if isinstance(value, int) else value


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("study")
    records = write_folder(path, study_a())
    failed = {"id": "failed1", "error": "ContractError: broken", "command": "headwise run --strategy broken"}
    lines = [json.dumps(record) + "\n" for record in [*records, failed]]
    (path / "results.jsonl").write_text("".join(lines) + '{"id": "torn')
    return path


@pytest.fixture(scope="module")
def paths(folder):
    return build(folder, title="A study <b>")


@pytest.fixture(scope="module")
def page(paths) -> Page:
    return Page(paths.html.read_text(encoding="utf-8"))


def test_everything_promised_is_written(paths, folder):
    assert (folder / "report.md", folder / "report.html") == (paths.markdown, paths.html)
    assert {"made-up-scores.png", "made-up-differences.png", "made-up-kept.png"} == {
        path.name for path in paths.figures
    }
    names = {path.name for path in paths.tables}
    for slug in (
        "made-up",
        "made-up-differences",
        "made-up-wins",
        "made-up-overlap",
        "references",
        "efficiency",
        "failures",
    ):
        assert {f"{slug}.csv", f"{slug}.tex"} <= names
    assert all(path.stat().st_size for path in (*paths.tables, *paths.figures))
    assert not [path for path in folder.rglob(".*") if path.is_file()]


def test_markdown_reads_back_with_the_same_figures_and_wins(paths, folder):
    counted = recount(paths.markdown)
    (comparison,) = heads_in(folder)
    assert {name: wins for name, (wins, _) in comparison.wins().items() if wins} == counted.wins
    assert (counted.cells, counted.filled, counted.has_baseline, counted.has_control) == (4, 20, True, True)
    assert counted.differences == ()


def test_a_report_of_several_benchmarks_reads_back_table_by_table(tmp_path):
    write_folder(tmp_path, study_a(("first", "second"), keeps=(16,), n=12), images=False)
    counted = recount(build(tmp_path).markdown)
    assert counted.tables == ("first", "second")
    assert counted.differences == ()


def test_markdown_names_the_torn_line_the_failure_and_every_command(paths, folder):
    text = paths.markdown.read_text(encoding="utf-8")
    assert "> The last line of results.jsonl is torn and was dropped" in text
    assert "| failed1 | - | failed | 1 | ContractError: broken | headwise run --strategy broken |" in text
    assert "# A study &lt;b&gt;" in text
    for record in map(json.loads, (folder / "results.jsonl").read_text().splitlines()[:-2]):
        assert record["id"] in text
    assert text.count("headwise run --strategy sharp") == 4


def test_the_page_needs_nothing_beside_itself(page):
    assert page.open == []
    sources = page.values("src")
    assert len(sources) == 1  # the overlay; figures are elements of the page
    assert all(source.startswith("data:image/") for source in sources)
    assert {link[0] for link in page.values("href")} == {"#", "d"}
    assert [link for link in page.values("href") if link[0] == "d"] == ["data:,"]  # no icon is asked for either
    assert not {"iframe", "object", "embed"} & {tag for tag, _, _ in page.attributes}
    assert "url(" not in "".join(page.text)


def test_the_page_forbids_itself_requests_and_every_script_but_its_own(page):
    policy = next(content for content in page.values("content") if "default-src" in content)
    (script,) = [text for kind, text in page.scripts if kind == ""]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'; img-src data:;" in policy
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")


def test_every_figure_on_the_page_leads_to_its_record_and_command(page, folder):
    ids = set(page.values("id"))
    targets = page.links
    assert set(targets) <= ids
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()[:-2]]
    assert {f"r-{record['id']}" for record in records} <= set(targets)
    sharp = [record["id"] for record in records if record["strategies"]["head_scoring"] == "sharp"]
    assert len(sharp) == 4
    for identity in sharp:
        assert "(SE)" in page.fact(identity, "Score")
        assert page.fact(identity, "n") == "60 questions of made-up"
        assert "head_scoring=sharp" in page.fact(identity, "Strategies").splitlines()
        assert page.fact(identity, "Command") == "headwise run --strategy sharp"


def test_a_figure_tells_its_difference_interval_and_test_once_for_all_tables(page, folder):
    (comparison,) = heads_in(folder)
    found = comparison.rows[0].cells["sharp"].against_baseline
    told = [note for note in page.data["notes"] if f"{found.value:+.2f} ± {found.se:.2f}" in note]
    assert told
    assert all(f"95% interval\t{found.low:+.2f} to {found.high:+.2f}" in note for note in told)
    assert len(set(page.data["notes"])) == len(page.data["notes"])
    assert {int(number) for number in page.values("data-own")} == set(range(len(page.data["notes"])))


def test_the_page_greys_what_is_no_difference_and_says_so(page):
    classes = [value for tag, name, value in page.attributes if (tag, name) == ("td", "class")]
    assert sum("recommended" in value for value in classes) == 8  # four, in the scores and in the differences
    assert any(value == "same" for value in classes)
    assert any("≈ no difference, ↑ better, ↓ worse" in text for text in page.text)


def test_text_from_records_cannot_become_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    record = {**fake_record("sharp", 4), "command": evil, "model": evil, "benchmark": f"b{evil}|x"}
    write_folder(tmp_path, [(record, 0.5)], images=False)
    built = build(tmp_path, title=evil)
    page = Page(built.html.read_text(encoding="utf-8"))
    assert [kind for kind, _ in page.scripts] == ["application/json", ""]
    assert page.open == []
    assert evil in "".join(page.text)
    assert "alert(1)" not in dict(page.scripts)[""]
    assert "<script>" not in built.markdown.read_text(encoding="utf-8")


def test_csv_carries_figures_pairs_verdict_strategies_and_command(folder, paths):
    with (folder / "tables" / "made-up.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 20
    sharp = next(row for row in rows if row["column"] == "sharp")
    (comparison,) = heads_in(folder)
    cell = comparison.rows[0].cells["sharp"]
    assert (cell.value, cell.against_baseline.se) == (float(sharp["value"]), float(sharp["difference_se"]))
    assert (sharp["verdict"], sharp["pairs"], sharp["n"]) == ("better", "60", "60")
    assert (sharp["strategies.head_scoring"], sharp["command"]) == ("sharp", "headwise run --strategy sharp")
    assert sharp["overlap.recall"] == "0.8"


def test_latex_is_booktabs_with_bold_grey_and_escapes():
    grid = Grid.of(
        "T", "t", ["Token", "Head", "a_b", "c&d"], [["x", "4", Mark("5%", bold=True), Mark("1", verdict="same")]]
    )
    text = latex(grid)
    assert r"Token & Head & a\_b & c\&d \\" in text
    assert r"x & 4 & \textbf{5\%} & \textcolor{gray}{1} \\" in text
    for part in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{part}") == 1


def test_markdown_escapes_bars_and_marks_verdicts():
    grid = Grid.of(
        "T", "t", ["a|b", "c"], [[Mark("1", bold=True, verdict="better", recommended=True), Mark("2", verdict="same")]]
    )
    assert markdown(grid) == "| a\\|b | c |\n| --- | --- |\n| **1** ↑★ | 2 ≈ |"


def test_figures_are_pictures_with_something_on_them(paths):
    for path in paths.figures:
        drawing, paper = path.with_suffix(".svg").read_text(), path.with_suffix(".pdf").read_bytes()
        assert drawing.count("<path") > 20
        assert "<dc:date>" not in drawing
        assert paper.startswith(b"%PDF")
        assert b"/CreationDate" not in paper
        assert b"/Type3" not in paper  # fonts are embedded as TrueType, which publishers ask for
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 200
        assert pixels.std() > 5


def test_building_twice_gives_the_same_files(tmp_path):
    write_folder(tmp_path, study_a(keeps=(16,), n=12))
    built = build(tmp_path)
    drawn = [path.with_suffix(kind) for path in built.figures for kind in (".png", ".svg", ".pdf")]
    before = {path: path.read_bytes() for path in (built.markdown, built.html, *built.tables, *drawn)}
    build(tmp_path)
    assert before == {path: path.read_bytes() for path in before}


def test_missing_images_leave_the_overlay_out_with_a_note(tmp_path):
    write_folder(tmp_path, study_a(keeps=(16,), n=20), images=False)
    built = build(tmp_path)
    assert {"made-up-scores.png", "made-up-differences.png"} == {path.name for path in built.figures}
    assert built.warnings == ("made-up: no overlay of kept tokens, since the image files are gone.",)


def test_a_model_whose_tokens_have_no_place_on_pictures_gets_no_overlay(tmp_path):
    trials = [({**record, "pictures": None}, ability) for record, ability in study_a(keeps=(16,), n=20)]
    write_folder(tmp_path, trials)
    (warning,) = build(tmp_path).warnings
    assert (
        warning == "made-up: no overlay of kept tokens, since the tokens of this model have no place on its pictures."
    )


def test_a_folder_of_one_record_still_makes_a_report(tmp_path):
    record = {key: value for key, value in fake_record().items()
              if key not in ("cost", "overlap", "attention", "diversity", "timing", "hardware", "command")}  # fmt: skip
    write_folder(tmp_path, [(record, 0.5)], images=False)
    text = build(tmp_path).markdown.read_text(encoding="utf-8")
    assert "only the baseline was run, so nothing is compared" in text


def test_an_unpruned_model_alone_makes_a_report_without_tables(tmp_path):
    write_folder(tmp_path, [(fake_record(pruning="none", keep=None), 0.9)], images=False)
    built = build(tmp_path)
    assert built.figures == ()
    assert "There is nothing to compare" in built.markdown.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_to_is_a_data_error(tmp_path):
    write_folder(tmp_path, [(fake_record(), 0.5)], images=False)
    (tmp_path / "tables").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="the report cannot be written to") as caught:
        build(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_flops_share_uses_the_unpruned_trial_else_the_known_shape(tmp_path):
    def share(trials) -> str:
        write_folder(tmp_path, trials, images=False)
        grid = next(grid for grid in gather(tmp_path).closing if grid.slug == "efficiency")
        return grid.rows[-1][grid.header.index("FLOPs share")].text

    pruned, full = fake_record(), fake_record(pruning="none", keep=None)
    assert f"{100 * pruned['cost']['flops_visual'] / full['cost']['flops_visual']:.1f}%" == share(
        [(full, 0.9), (pruned, 0.5)]
    )
    geometry = shape("demo-llava")
    half = prefill_flops(geometry, [geometry.visual_tokens] * geometry.layers) // 2
    assert share([({**pruned, "cost": {"flops_visual": half, "flops_formula": "gated"}}, 0.5)]) == "50.0%"
    assert share([({**pruned, "model": "somebody's"}, 0.5)]) == "-"


def test_references_without_head_selection_are_paired_with_all_heads(folder):
    grid = next(grid for grid in gather(folder).closing if grid.slug == "references")
    assert [row[1].text for row in grid.rows] == ["unpruned", "random:seed=0", "random:seed=0"]
    assert [row[4].verdict for row in grid.rows] == ["", "worse", "worse"]


def test_the_terminal_table_tells_strategy_heads_figure_difference_verdict_and_recall(folder):
    ((table,),) = [chapter.terminal() for chapter in gather(folder).chapters]
    console = Console(width=120, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: SIM115
    console.print(table)
    lines = console.export_text().splitlines()
    console.file.close()
    sharp = [line for line in lines if line.startswith("sharp")]
    assert len(sharp) == 4
    assert all(
        re.search(r"^sharp\s+[42]\s+[\d.]+ ± [\d.]+\s+\+[\d.]+ ± [\d.]+\s+recommended\s+0\.80", line) for line in sharp
    )
    assert sum(line.startswith("sum (all heads)") for line in lines) == 2
    assert sum("unpruned" in line for line in lines) == 1


def test_the_terminal_table_without_outcomes_compares_nothing():
    trials = [Trial(record_of(fake_record())), Trial(record_of(fake_record("sharp", 4)))]
    table = heads_table(trials, compare_heads(trials))
    assert table.row_count == 3
    assert [str(cell) for cell in table.columns[3]._cells] == ["", "", "-"]


def run(*arguments: str):
    application = typer.Typer()
    application.command()(report)
    return CliRunner().invoke(application, list(arguments))


def test_the_command_prints_findings_and_paths(tmp_path):
    write_folder(tmp_path, [(fake_record(), 0.5)], images=False)
    printed = run(str(tmp_path))
    assert printed.exit_code == 0
    assert "only the baseline was run" in printed.stdout
    told = json.loads(run(str(tmp_path), "--json").stdout)
    assert str(tmp_path / "report.html") == told["html"]
    assert isinstance(run(str(tmp_path), "--n", "a=1").exception, DataError)


def test_the_command_module_is_light_to_import():
    heavy = "{'torch', 'transformers', 'matplotlib', 'jinja2', 'numpy', 'PIL'}"
    code = f"import sys, headwise_lab.commands.report; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
