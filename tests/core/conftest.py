"""Made-up distributions on sys.path, so that discovery is tested without pip."""

from __future__ import annotations

import sys
from collections import defaultdict

import pytest


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution: ``install("extra", "2.0", {"head_scoring": {"mine": "mod:Mine"}}, mod="source")``.

    Groups are given without the ``headwise.`` in front, modules as keyword arguments with their source.
    """

    def install(name, version, groups, **modules):
        folder = tmp_path / name
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        sections = defaultdict(list)
        for group, entries in groups.items():
            sections[f"[headwise.{group}]"] += [f"{key} = {value}" for key, value in entries.items()]
        lines = [line for section, entries in sections.items() for line in (section, *entries)]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)

    before = set(sys.modules)
    yield install
    for module in set(sys.modules) - before:
        if (getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[module]
