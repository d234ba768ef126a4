"""What pyproject.toml declares is what is installed, and what it names is there."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
REINSTALL = "pyproject.toml and the installation differ; run `pip install -e .` again, entry points are metadata"


@pytest.mark.parametrize("group", DECLARED)
def test_installed_entry_points_are_the_declared_ones(group):
    found = {entry.name: entry.value for entry in entry_points(group=group) if entry.dist.name == "headwise"}
    assert DECLARED[group] == found, REINSTALL


@pytest.mark.parametrize(
    "value", [pytest.param(value, id=value) for group in DECLARED.values() for value in group.values()]
)
def test_every_entry_point_names_a_module_that_is_there(value):
    from headwise.source import find

    module = value.partition(":")[0]
    assert find(module), f"{module} has no source file"
