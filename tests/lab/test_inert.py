"""Text from outside is text wherever it is shown: in a terminal, a table, a page, a picture or a paper."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from unicodedata import category
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from tests.lab.fake_records import fake_record, study_a, write_folder

import headwise
import headwise_lab
from headwise.cli import main
from headwise.printing import printable
from headwise_lab.exporting.writers import NAMES
from headwise_lab.report.page.grid import Grid, fenced, grid_csv, markdown, markdown_line, markdown_text
from headwise_lab.report.page.latex import latex
from headwise_lab.report.published.score_tables import read_tables, unescaped
from headwise_lab.store.csv_cells import csv_cell
from headwise_lab.terminal import Terminal

ESCAPES = (
    *(
        "\x1b[2J",
        "\x1b]8;;http://e.example\x07x\x1b]8;;\x07",
        "\x1b]0;title\x07",
        "a\rb",
        "\x9b31m",
        "\x7f",
        "\b\b",
        "\0",
    ),
    *(
        "\u202eabc",
        "\u2066a\u2069",
        "\u200b",
        "\u200d",
        "\ufeff",
        "\u2028",
        "\u2029",
        "\ud800",
        "\U000e0001",
        "\x0b\x0c",
    ),
)
MARKS = (
    *("![x](http://e.example/x.png)", "[x](javascript:alert(1))", "<img src=x onerror=alert(1)>", "<http://e.example>"),
    *("</script><script>alert(1)</script>", "a|b", "a\nb", "`x`", "``` x", "**b**", "_b_", "~~b~~", "# b", "&lt;b&gt;"),
    *(
        "https://e.example",
        "www.e.example",
        "\\",
        "\\|",
        "[x]: http://e.example",
        "&#60;b&#62;",
        "<!-- b",
        "]]>",
        "$x^2$",
    ),
    *('" onmouseover="alert(1)', "'><svg/onload=alert(1)>", "{{ 7 * 7 }}", "{% raw %}", "\\input{x}", "%", "#$&~^_{}"),
)
FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-1+cmd|'x'!A0", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "=HYPERLINK(1)")
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")


def obeyed(text: str) -> list[str]:
    """What in a text a terminal obeys or hides."""
    return [letter for letter in text if category(letter) in OBEYED and letter not in "\n\t"]


@given(st.text(st.characters(), max_size=60))
def test_only_letters_are_printed_and_json_stays_the_same_value(text):
    assert not obeyed(printable(text))
    assert printable(printable(text)) == printable(text)
    told = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(printable(told)) == {"a": text}
    if not obeyed(text):
        assert printable(text) == text


@pytest.mark.parametrize("text", ESCAPES)
def test_escapes_never_reach_the_terminal(text, capsys):
    table = Table(text, "b", title=text)
    table.add_row(text, Text(text))
    output = Terminal(force_terminal=True, width=200, color_system="truecolor")
    output.print(text)
    output.print(table)
    with Progress(console=Terminal(force_terminal=True, stderr=True)) as bar:
        bar.add_task("x", total=1)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)  # what rich itself colours
    assert not obeyed(shown)
    assert "[31m" not in shown or text == "\x9b31m"


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/x]", "[link=http://e.example]x[/link]", "x\\", ":smile:"])
def test_markup_in_names_is_text(text, capsys):
    table = Table(text, box=None)
    table.add_row(text)
    Terminal(width=100).print(table)
    Terminal(width=100).print(text)
    assert capsys.readouterr().out.split() == [text] * 3


def test_all_printing_goes_through_one_place():
    """By its source: neither typer, print nor rich's own console is used elsewhere in what commands import."""
    free = {"printing.py", "output.py"}
    for root in (Path(headwise.__file__).parent, Path(headwise_lab.__file__).parent):
        for path in root.rglob("*.py"):
            if path.name in free or "demo" in path.parts or path.parts[-2:] in OTHERS:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in ("typer.echo", "print", "Console", "rich.print"), f"{path}:{node.lineno}"


OTHERS = {("headwise", "cli.py"), ("engines", "__init__.py"), ("models", "smollm2.py")}
"""Where fixed sentences are printed."""


@pytest.mark.parametrize("text", ["\x1b[2Jx", "a\rb", "\u202eabc", "\x9b2J"])
def test_no_command_hands_an_escape_on(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (
        ["show", text],
        ["plan", "--shape", text, "--keep", "5"],
        ["plan", "--strategy", f"token_pruning={text}", "--shape", "llava-1.5-7b", "--keep", "5"],
        ["status", text],
        ["report", text],
        ["export", text],
        ["report", "--table", text],
        ["import-results", text, "--out", "x"],
        ["sweep", text, "--plan"],
        [text],
    ):
        assert main(words) == 2
        told = capsys.readouterr()
        assert not obeyed(told.out + told.err), words


def odd_folder(folder: Path, text: str) -> Path:
    """An output folder whose records carry a text wherever one can stand."""
    trials = study_a(keeps=(48, 16), n=6)
    for record, _ in trials:
        record.update(model=f"m{text}", command=f"c {text}", recipe=f"r{text}", group=f"g{text}", weights=text)
        record["strategies"]["head_scoring"] += f":a=b{re.sub('[],[]', '', printable(text.replace(chr(10), '')))}"
        record["metrics"][f"accuracy/{text}"] = 1.0
        record["hardware"]["cpu"] = text
        record["metric"]["name"] = f"accuracy {text}"
        record["notes"] = {text: text}
    failed = {**fake_record("norm", study="a"), "model": f"m{text}", "error": f"E: {text}"}
    refused = {**fake_record("max", study="a"), "model": f"m{text}", "refused": f"no: {text}"}
    write_folder(folder, trials, images=False)
    with (folder / "results.jsonl").open("a", encoding="utf-8") as stream:
        for record in (failed, refused):
            stream.write(json.dumps(record) + "\n")
    return folder


class Alive(HTMLParser):
    """What a page does besides being read."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.found += [name for name in given if name.startswith("on")]
        self.found += [tag] * (tag in ("iframe", "object", "embed", "base"))
        self.found += [tag] * (tag == "svg" and given.get("class") != "chart")  # figures of ours
        self.found += ["img"] * (tag == "img" and not str(given.get("src")).startswith("data:image/"))
        self.found += ["script"] * (tag == "script" and given.get("type") != "application/json")
        href = str(given.get("href", "#"))
        self.found += [href] * (not href.startswith(("#", "data:,")))


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def alive_in_markdown(text: str) -> list[str]:
    """Links, tags and pictures of a page that are not its own."""
    found = []
    for token in (inner for outer in MARKDOWN.parse(text) for inner in [outer, *(outer.children or ())]):
        if token.type in ("link_open", "html_inline", "html_block", "s_open"):
            found.append(token.type)
        if token.type == "code_inline" and not token.content.startswith(("headwise ", "sum")):
            found.append(token.content)
        if token.type == "image" and not str(token.attrs["src"]).startswith("figures/"):
            found.append(str(token.attrs["src"]))
    return found


@pytest.mark.parametrize("text", [" ".join(MARKS), "".join(ESCAPES)], ids=["marks", "escapes"])
def test_a_whole_report_of_such_names_is_inert(text, tmp_path, capsys):
    folder = odd_folder(tmp_path / "out", text)
    assert main(["report", str(folder)]) == 0
    told = capsys.readouterr()
    assert not obeyed(told.out + told.err)
    page = (folder / "report.html").read_text(encoding="utf-8")
    parser = Alive()
    parser.feed(page)
    assert parser.found == ["script"]  # the page's own
    assert "\u2028" not in page
    plain = (folder / "report.md").read_text(encoding="utf-8")
    assert not alive_in_markdown(plain)
    assert not obeyed(plain)
    assert not re.search(r"(?<!\\):(?=//)|www\.", plain)
    for path in folder.rglob("*.svg"):
        ElementTree.parse(path)
    assert len(list(folder.rglob("*.svg"))) > 1
    for path in folder.rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
        assert {len(row) for row in rows} <= {len(header)}
    for path in folder.rglob("*.tex"):
        assert not obeyed(path.read_text(encoding="utf-8"))
        assert "\\input" not in path.read_text(encoding="utf-8")
    assert main(["report", str(folder), str(folder), "--out", str(tmp_path / "both")]) == 0
    told = capsys.readouterr()
    assert not obeyed(told.out + told.err)
    assert not alive_in_markdown((tmp_path / "both" / "report.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "text", [*MARKS, *FORMULAS, *ESCAPES, "1. b", "12) b", "- b", "+ b", "> b", "=== b", "    b", "x #"]
)
def test_markdown_shows_a_text_as_it_is(text):
    wanted = printable(" ".join(text.split()))
    shown = MARKDOWN.parse(markdown_line(text))
    assert [token.type for token in shown][:1] in (["paragraph_open"], [])
    assert all(inner.type in ("text", "text_special") for token in shown for inner in token.children or ())
    assert " ".join("".join(inner.content for token in shown for inner in token.children or ()).split()) == wanted
    table = markdown(Grid.of("t", "t", ["a", text], [[text, "2"], ["1", text]]))
    rows = [token.type for token in MARKDOWN.parse(table)]
    assert (rows.count("tr_open"), rows.count("td_open"), rows.count("th_open")) == (3, 4, 2)
    assert not alive_in_markdown(table)
    if not obeyed(text) and "\t" not in text:
        assert unescaped(markdown_text(text)) == " ".join(text.splitlines())


@given(st.text(max_size=30))
def test_no_text_at_all_is_alive_in_markdown(text):
    assert not alive_in_markdown(f"# {markdown_text(text)}\n\n- {markdown_line(text)}\n\n{markdown_line(text)}\n")
    assert [token.type for token in MARKDOWN.parse(fenced(text))] == ["fence"]


def test_a_table_that_was_written_with_such_names_is_read_again():
    names = ["a|b", "c*d", "[x](y)", "<b>", "&amp;", "_x_", "a\\b"]
    text = f"## {markdown_text('x <y> results')}\n\n" + markdown(
        Grid.of("t", "t", ["Token", "Head", *names], [["8", "all", *"1234567"]])
    )
    (table,) = read_tables(text, "file")
    assert (table.name, table.columns) == ("x <y>", tuple(names))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_begins_as_a_formula_is_text(text, tmp_path):
    assert csv_cell(text) == f"'{text}"
    written = grid_csv(Grid.of("t", "t", ["a", text], [[text, "2"]]))
    assert list(csv.reader(io.StringIO(written, newline=""))) == [["a", f"'{text}"], [f"'{text}", "2"]]
    folder = odd_folder(tmp_path / "out", text)
    assert main(["export", str(folder), "--to", "csv"]) == 0
    for name in NAMES:
        with (folder / f"export-{name}.csv").open(encoding="utf-8", newline="") as stream:
            cells = [cell for row in csv.reader(stream) for cell in row]
        assert not [cell for cell in cells if cell.lstrip(" ")[:1] in list("=+@\t\r\n")]
        assert name != "trials" or f"'{text}" in cells


@pytest.mark.parametrize(
    "value",
    [-1, -1.5, 2e300, True, None, "-", "-1.5", "+1.2 ± 0.3", "-0.5 ± 0.1 ↓", "-3 %", "+1e-5", "-inf", "−1", "a=1"],
)
def test_numbers_stay_numbers(value):
    assert csv_cell(value) is value


@pytest.mark.parametrize("text", [*MARKS, *ESCAPES])
def test_latex_has_no_command_but_ours(text):
    table = latex(Grid.of(text, "t", ["a", text], [[text, "2"]], text))
    for line in table.splitlines():
        if line.startswith("%"):
            continue
        bare = re.sub(r"\\[&%$#_{}]|\\(text\w+|begin|end|toprule|midrule|bottomrule)\b|\\\\$|\$-\$", "", line)
        assert not re.search(r"[\\%$#_~^]", bare), line
        assert len(re.findall(r"(?<!\\)&", line)) in (0, 1)
