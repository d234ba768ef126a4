"""``headwise doctor`` tells what is here, what is missing, and whose plugin is broken."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from headwise.cli import main
from headwise.commands import doctor
from headwise.registry import installed


@pytest.fixture(scope="module")
def text():
    return "\n".join(doctor._lines(doctor._found()))


def test_versions_devices_attention_and_families_are_told(text):
    assert f"  torch {version('torch')}" in text
    assert f"  transformers {version('transformers')}" in text
    assert "  cpu: " in text
    assert "  sdpa: available" in text
    (adapters,) = [line for line in text.splitlines() if line.startswith("  adapter: ")]
    assert adapters == f"  adapter: {', '.join(installed('adapter'))}"
    assert "FAILED" not in text


def test_what_an_extra_lacks_is_told_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: {"optuna": None, "pytest": "1.0"}.get(name, "99.0"))
    lines = doctor._lines(doctor._found())
    assert '  tune: lacks optuna>=4.0; pip install "headwise[tune]"' in lines
    assert '  testing: lacks pytest>=8.2 (here 1.0); pip install "headwise[testing]"' in lines
    assert "  export: complete" in lines
    assert not any(line.startswith("  dev:") for line in lines)


def test_a_broken_plugin_is_told_by_its_owner_and_costs_nobody_else(install, capsys):
    install("zebra", "1.2", {"head_scoring": {"torn": "torn:Torn", "fine": "fine:Fine"}},
            torn="raise OSError('no such luck')", fine="class Fine: pass")  # fmt: skip
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["distributions"]] == ["headwise", "zebra"]
    assert found["distributions"][0]["failures"] == []
    (failure,) = found["distributions"][1]["failures"]
    assert failure.startswith("head_scoring torn: ")
    assert "no such luck" in failure
    assert found["distributions"][1]["plugins"] == {"head_scoring": ["fine", "torn"]}
    assert found["packages"]["headwise"] == version("headwise")
