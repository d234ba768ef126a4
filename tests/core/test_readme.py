"""The README is short, its commands are the ones CI runs, and its snippets run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return [line.strip() for line in README.splitlines() if line.startswith("    ")]


def test_it_has_120_lines_at_most():
    assert len(README.splitlines()) <= 120


def test_ci_runs_the_test_command_of_the_readme():
    tested = next(line for line in commands() if line.endswith("pytest -q -n auto"))
    install_and_test = tested.split("activate && ", 1)[1]
    assert install_and_test in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_no_figure_is_left_to_fill_in():
    assert "<<" not in README


def test_what_it_links_to_is_there():
    linked = [path for path in re.findall(r"\]\(([^)#]+)", README) if "://" not in path]
    assert linked
    assert not [path for path in linked if not (ROOT / path).is_file()]


def snippets() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", snippets(), ids=["vision", "text"])
def test_snippets_load_prompt_attach_generate_and_decode(code, capsys):
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    if "demo-llava" in code:
        assert lines == ["cafe", re.search(r"# (<headwise.*>)$", code, flags=re.MULTILINE)[1]]
    else:
        assert lines[0].startswith("In the beginning God created the heaven and the earth.")
        assert re.fullmatch(r"\d+ \[\[16 16.*", lines[1])  # four sinks and a window of twelve
