"""``headwise new`` writes a package whose own tests pass, and refuses what would not be one."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

import pytest

from headwise.cli import main
from headwise.commands.new import EXAMPLES, package
from headwise.hookspecs import HOOKS


def test_the_tests_of_a_package_with_every_hook_pass_untouched(tmp_path, capsys):
    folder = tmp_path / "my-rules"
    words = [word for hook in EXAMPLES for word in ("--hook", hook)]
    assert main(["new", "my-rules", *words, "--out", str(folder)]) == 0
    assert f"cd {folder} && pip install" in capsys.readouterr().out
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "my_rules-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(info.parent), str(folder)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_every_hook_has_an_example_and_files_are_only_those_asked_for():
    assert tuple(EXAMPLES) == (*HOOKS, "benchmark")
    made = package("one", ["kv_eviction"])
    assert sorted(path for path in made if path.endswith(".py")) == [
        "one/__init__.py", "one/long_values.py", "tests/test_conformance.py",
    ]  # fmt: skip
    assert made["pyproject.toml"].count("entry-points") == 1
    assert "headwise check kv_eviction=long_values" in made["README.md"]
    assert "python-version: ${{ matrix.python }}" in made[".github/workflows/tests.yml"]
    assert all("{%" not in text and text.endswith("\n") and "\n\n\n\n" not in text for text in made.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["My_Rules"], "'My_Rules' is no name for the package"),
        (["class"], "no word of Python"),
        (["headwise-mine"], "nothing that begins with headwise"),
        (["fine", "--hook", "head_scorin"], "there is no hook 'head_scorin'; did you mean head_scoring"),
        (["fine", "--out", "full"], "full is not empty; give --out a new folder"),
        (["fine", "--out", "file"], "file cannot be written (File exists); give --out another place"),
    ],
)
def test_what_would_be_no_package_is_one_sentence_and_writes_nothing(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert main(["new", *words]) == 2
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]
