"""What would be published: complete, clean, valid, and working where there is no source tree.

Slow, and a step of its own in CI: ``pytest -m slow tests/packaging``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.slow

PACKAGES = {path.name: path for path in (ROOT / "core/headwise", ROOT / "plugins/headwise_plugins",
                                         ROOT / "adapters/headwise_adapters", ROOT / "lab/headwise_lab")}  # fmt: skip
MACHINE_MADE = ("__pycache__", ".pyc", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".git/")
LIGHT = ("attrs", "packaging", "pluggy", "typer")
"""All that a listing needs."""


def source_files():
    """Every file of the four packages, as it is called in a wheel."""
    return {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# ------------------------------------------------------------------------------------------------------------- contents
def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == source_files()
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    for model in ("demo-llava", "demo-pythia"):
        assert f"headwise_lab/models/{model}/model.safetensors" in names


def test_the_sdist_has_sources_and_tests_and_nothing_that_a_machine_made(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    roots = {f"{folder.parent.name}/{name}" for name, folder in PACKAGES.items()}
    assert {f"{root}/__init__.py" for root in roots} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/conftest.py"} <= names
    assert any(name.startswith("examples/headwise-example/") for name in names)
    assert not [name for name in names for mark in MACHINE_MADE if mark in name]


def test_metadata_is_valid_and_says_what_pyproject_says(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        raw = archive.read(name)
    metadata, project = Metadata.from_email(raw, validate=True), tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]
    assert (metadata.name, str(metadata.version)) == (wanted["name"], wanted["version"])
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type.startswith("text/markdown")
    assert metadata.description.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert set(metadata.provides_extra) == set(wanted["optional-dependencies"])
    assert len(metadata.summary) < 512  # package indexes refuse longer ones


def test_every_entry_point_names_a_file_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        (name,) = [name for name in files if name.endswith(".dist-info/entry_points.txt")]
        lines = archive.read(name).decode().splitlines()
    for line in filter(lambda line: " = " in line, lines):
        module = line.partition(" = ")[2].partition(":")[0].replace(".", "/")
        assert files & {f"{module}.py", f"{module}/__init__.py"}, line


# ---------------------------------------------------------------------------------------------------------- installed
def test_an_installed_wheel_lists_everything_and_reads_its_own_files(from_wheel):
    place = from_wheel.run("python", "-c", "import headwise, headwise_lab; print(headwise.__file__)").stdout
    assert place.startswith(str(from_wheel.folder))
    listed = from_wheel.run("headwise", "strategies", "--json")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(json.loads(listed.stdout)) > 80
    assert all(row["summary"] for row in json.loads(listed.stdout))
    made = from_wheel.run("headwise", "new", "my-strategies")
    assert (made.returncode, made.stderr) == (0, "")


def test_the_demo_runs_from_the_wheel(from_wheel, tmp_path):
    done = from_wheel.run("headwise", "demo", "--limit", "2", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()


def test_an_installed_sdist_is_the_same(sdist, wheel, environment):
    made = environment("from-sdist")
    made.install(sdist)
    (packages,) = made.folder.glob("lib/python*/site-packages")
    installed = {
        path.relative_to(packages).as_posix()
        for name in PACKAGES
        for path in (packages / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert installed == {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert made.run("headwise", "--version").stdout.startswith("headwise ")


USER = '''
"""What somebody writes who uses headwise and has mypy check it strictly."""

import attrs
from torch import Tensor

import headwise
from headwise import Budget, Geometry, Pipeline, PruningPlan, Recipe, hookimpl


@attrs.frozen(eq=False)
class Mine:
    """Sums."""

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Scores."""
        return attention.sum(dim=-1)


def plan(shape: str, tokens: float) -> PruningPlan:
    """A plan."""
    geometry: Geometry = headwise.shape(shape)
    recipe = Recipe.of("fastv:layer=2", tokens=tokens)
    budget: Budget = recipe.budget
    assert budget.tokens == tokens
    return Pipeline(recipe).plan(geometry)


reveal_type(plan("llava-1.5-7b", 192).kept)
'''


def test_a_users_file_passes_mypy_strict(from_wheel, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(from_wheel.python), "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Revealed type is "int"' in done.stdout.replace("builtins.", "")
    assert "Success: no issues found" in done.stdout, done.stdout


# ------------------------------------------------------------------------------------------------------ the example
def test_the_example_is_installed_tested_used_and_removed_again(wheel, environment, tmp_path):
    made = environment("with-example")
    made.install(wheel)
    example = shutil.copytree(ROOT / "examples/headwise-example", tmp_path / "example")
    made.install(example)
    tested = made.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", example)
    assert tested.returncode == 0, tested.stdout + tested.stderr

    out = tmp_path / "out"
    words = ("headwise", "run", "--recipe", "top-mass", "--benchmark", "counting", "--tokens", "72", "--limit", "2")
    used = made.run(*words, "--out", out)
    assert used.returncode == 0, used.stderr
    assert "head_scoring=top_mass:share=0.05" in used.stdout

    made.pip("uninstall", "-y", "headwise-example")
    listed = made.run("headwise", "strategies")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "top_mass" not in listed.stdout
    gone = made.run(*words)
    assert (gone.returncode, gone.stdout) == (2, "")
    assert (
        gone.stderr == f"headwise: unknown recipe 'top-mass'{gone.stderr.partition(chr(39) + 'top-mass' + chr(39))[2]}"
    )
    reported = made.run("headwise", "report", out)
    assert reported.returncode == 0, reported.stderr


# ------------------------------------------------------------------------------------------------------ other Pythons
def interpreter(minor):
    """A Python 3.x that runs: on the search path, or among the versions that pyenv keeps; None where there is none."""
    kept = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3.{minor}"))
    for path in filter(None, [shutil.which(f"python3.{minor}"), *map(str, kept)]):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


@pytest.mark.parametrize("minor", [12, 13, 14])
def test_newer_pythons_list_and_show(minor, wheel, tmp_path):
    """Without torch, of which a listing has no need: installing it for every Python would be gigabytes."""
    python = interpreter(minor)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} here")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    programs = Path(tmp_path, "venv", "bin")

    def run(*words):
        return subprocess.run([programs / words[0], *words[1:]], capture_output=True, text=True, check=False)

    fetched = run("python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *LIGHT)
    if fetched.returncode:
        pytest.skip(f"no packages could be had for Python 3.{minor}: {fetched.stderr.strip().splitlines()[-1]}")
    assert run("python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)).returncode == 0
    for words in (["strategies"], ["show", "cdpruner"], ["--help"], ["check", "--help"], ["--version"]):
        done = run("headwise", *words)
        assert (done.returncode, done.stderr) == (0, ""), words
