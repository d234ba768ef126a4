"""The site: its Python runs, its command lines have options that exist, its made pages say what the code says."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from headwise.cli import application
from headwise.hookspecs import HOOKS
from headwise.testing import laws

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
sys.path.insert(0, str(ROOT / "docs"))  # as MkDocs does for its hook

from headwise_site import command_page, law_page, measured, outside, strategy_pages, sweep_page  # noqa: E402
from headwise_site.text import prose  # noqa: E402

INCLUDED = re.compile(r'^--8<-- "README\.md:(\w+)"$', re.MULTILINE)
BLOCK = re.compile(r'^```python\n(.*?)^```$(?:\n\n```text title="prints"\n(.*?)^```$)?', re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def whole(path: Path) -> str:
    """A page with what it takes from README in its place."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    def section(found: re.Match[str]) -> str:
        return re.search(rf"\[start:{found[1]}\] -->\n(.*?)<!-- --8<-- \[end:{found[1]}\]", readme, re.DOTALL)[1]

    return INCLUDED.sub(section, path.read_text(encoding="utf-8"))


def named(paths):
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.mark.parametrize(
    "path", named(path for path in PAGES if path.name != "README.md" and BLOCK.search(whole(path)))
)
def test_the_python_of_a_page_runs_from_top_to_bottom(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    for code, prints in BLOCK.findall(whole(path)):
        exec(compile(code, str(path), "exec"), space)
        printed = capsys.readouterr().out
        assert not prints or printed == prints


def command_lines(path: Path) -> list[str]:
    """The ``headwise`` commands in the shell blocks of a page, without what stands before and after them."""
    text = path.read_text(encoding="utf-8")
    blocks = SHELL.findall(text) + (re.findall(r"^    (.+)$", text, re.MULTILINE) if path.name == "README.md" else [])
    lines = [line for block in blocks for line in block.splitlines()]
    parts = [part for line in lines for part in re.split(r"&&|  #", line)]
    return [found[1] for part in parts if (found := re.match(r"(?:\w+=\S+ )*headwise (.+)", part.strip()))]


@pytest.mark.parametrize("path", named(path for path in PAGES if command_lines(path)))
def test_every_command_line_has_options_that_there_are(path):
    for line in command_lines(path):
        words = shlex.split(line)
        group = get_command(application(words))
        context = group.make_context("headwise", [], resilient_parsing=True)
        _, (name, *rest), _ = group.make_parser(context).parse_args([*words, "strategies"])
        command = group.commands[name]
        context = command.make_context(name, [], resilient_parsing=True)
        command.make_parser(context).parse_args(rest)  # raises, as above, for an option that there is not


@pytest.mark.parametrize("path", named(PAGES))
def test_command_lines_stand_in_blocks(path):
    outside_blocks = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not re.findall(r"^(?:\w+=\S+ )*(?:headwise|python) [\w.-]+ .*--.*$", outside_blocks, re.MULTILINE)


def test_every_strategy_and_recipe_has_a_page_and_is_listed_under_its_kind():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    listed = strategy_pages.shipped()
    for kind in (*HOOKS, "recipe", "observers"):
        assert {row.name for row in listed[kind]} == set(groups[f"headwise.{kind}"])
    pages = strategy_pages.pages()
    for kind, rows in listed.items():
        for row in rows:
            page = pages[f"reference/strategies/{kind}/{row.name}.md"]
            assert row.entry.attr in page
            assert f"[{row.name}]({row.name}.md)" in pages[f"reference/strategies/{kind}/index.md"]
            assert all(f"`{option.name}`" in page for option in row.description.options or ())


def test_what_was_measured_of_a_strategy_stands_on_its_page():
    assert "| dart | 2 | 96.3 |" in "".join(measured.of("recipe", "dart"))
    assert "| **tokens 48 (48.2)** | 6 | 94.00 | 93.40 ≈ | 92.80 ≈ |" in "".join(measured.of("head_scoring", "entropy"))
    assert "| adakv:of=[snapkv:ratio=0.5] |" in "".join(measured.of("kv_eviction", "adakv"))
    assert "| I_pos512_mix64_g128 |" in "".join(measured.of("kv_eviction", "head_windows"))
    assert not measured.of("head_count", "all")


def test_every_law_stands_on_the_page_of_laws():
    (text,) = law_page.pages().values()
    assert all(f"| `{law}` |" in text for hook in (*HOOKS, "benchmark") for law in laws(hook))


def test_every_command_and_every_key_has_its_place():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    told = re.findall(r"^## (\S+)$", command_page.commands(), re.MULTILINE)
    assert {*groups["headwise.command"], "plan", "show"} <= set(told)
    (keys,) = sweep_page.pages().values()
    assert all(f"| `{key}` |" in keys for key in ("kv_eviction", "head_shares", "permutations", "held_out"))


def test_what_is_cited_is_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version = {{{version}}}" in (ROOT / "docs" / "cite.md").read_text(encoding="utf-8")


def test_docstrings_lose_no_letter_to_markup():
    assert prose("a * b_c <image> of ``x_y`` in :func:`attach`") == r"a \* b\_c \<image\> of ``x_y`` in `attach`"


def test_what_a_page_would_load_from_elsewhere_is_found(tmp_path):
    link, script = '<a href="https://x.org/">x</a>', '<script src="//cdn.x/y.js"></script>'
    (tmp_path / "a.html").write_text(f"{link}{script}<style>a {{ background: url(https://x/z) }}</style>")
    (tmp_path / "b.css").write_text("@import 'http://x/fonts.css'; a { background: url(data:image/png;base64,AA) }")
    found = ["a.html: //cdn.x/y.js", "a.html: https://x/z", "b.css: http://x/fonts.css"]
    assert outside.loads(str(tmp_path)) == found
