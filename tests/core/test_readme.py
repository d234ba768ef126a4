"""The README's commands are the ones CI runs, and name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from headwise.hookspecs import HOOKS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return [line.strip() for line in README.splitlines() if line.startswith("    ")]


def test_ci_runs_the_test_command_of_the_readme():
    tested = next(line for line in commands() if line.endswith("pytest -q -n auto"))
    install_and_test = tested.split("activate && ", 1)[1]
    assert install_and_test in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_strategy_is_listed_under_its_hook():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    for hook in HOOKS:
        section = re.search(rf"\* `{hook}`(.+?)(?=\n\*|\n\n)", README, re.DOTALL).group(1)
        assert set(groups[f"headwise.{hook}"]) <= set(re.findall(r"\w+", section))


def test_no_figure_is_left_to_fill_in():
    assert "<<" not in README


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
