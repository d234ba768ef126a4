"""What a plugin raises, whatever it is, is its own failure: named, status 2, and nobody else's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from headwise import Stage, StrategyError
from headwise.cli import main
from headwise.eviction import ScorePlan, WindowPlan
from headwise.families import geometry_of
from headwise.listing import rows
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.registry import Registry, installed

RAISED = {
    "exit": "raise SystemExit(0)",
    "quit": "import sys; sys.exit()",
    "generator": "raise GeneratorExit",
    "stop": "raise StopIteration",
    "memory": "raise MemoryError",
    "group": "raise BaseExceptionGroup('several', [SystemExit(0)])",
    "silent": "raise type('Silent', (Exception,), {'__str__': lambda self: 1 / 0})",
    "depth": "f = lambda: f()\n        f()",
    "boom": "raise RuntimeError('boom')",
}
SOURCE = """
from headwise import hookimpl
class Mine:
    def __init__(self):
        {built}
    @hookimpl
    def head_scoring(self, attention):
        {asked}
"""


@pytest.mark.parametrize("raised", RAISED.values(), ids=RAISED)
@pytest.mark.parametrize("moment", ["imported", "built", "asked"])
def test_whatever_a_plugin_raises_is_its_own_failure(install, raised, moment):
    source = SOURCE.format(built=raised if moment == "built" else "pass", asked=raised if moment == "asked" else "pass")
    if moment == "imported":
        source = "if True:\n        " + raised
    install("extra", "2.0", {"head_scoring": {"mine": "extra_mine:Mine"}}, extra_mine=source)
    with pytest.raises(StrategyError, match=r"extra 2\.0") as caught:
        Pipeline(Recipe.of("head_scoring=mine")).choose_heads(torch.rand(1, 4, 6), 1.0, lambda: torch.zeros(1))
    assert "\n" not in str(caught.value)


def test_ctrl_c_in_a_plugin_is_still_ctrl_c(install):
    source = SOURCE.format(built="pass", asked="raise KeyboardInterrupt")
    install("extra", "2.0", {"head_scoring": {"mine": "extra_mine:Mine"}}, extra_mine=source)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(Recipe.of("head_scoring=mine")).choose_heads(torch.rand(1, 4, 6), 1.0, lambda: torch.zeros(1))


@pytest.mark.parametrize("words", [["plan", "--shape", "demo-llava", "--strategy", "mine"], ["show", "mine"]])
def test_a_plugin_that_ends_the_program_is_status_2_on_the_command_line(install, capsys, words):
    install("extra", "2.0", {"token_pruning": {"mine": "extra_mine:Mine"}}, extra_mine="import sys; sys.exit(0)")
    assert main(words) == 2
    assert "extra 2.0" in capsys.readouterr().err


@pytest.mark.parametrize("raised", [SystemExit(0), RuntimeError("boom"), GeneratorExit()])
def test_what_plans_carry_names_its_strategy_as_well(raised):
    def fail(_):
        raise raised

    with pytest.raises(StrategyError, match=r"'fastv:layer=2' \(headwise"):
        Pipeline(Recipe.of("fastv", keep=2)).select(Stage(2, 2, fail), SimpleNamespace(batch=1, visual=4, keep=2))


def test_an_observer_that_fails_is_named():
    from headwise import hookimpl

    class Watching:
        @hookimpl
        def selected(self, selection):
            raise SystemExit(0)

    with pytest.raises(StrategyError, match=r"an observer \(.*Watching\) failed: SystemExit"):
        Pipeline(Recipe.of(), [Watching()]).observe(None)


@pytest.mark.parametrize(
    ("metadata", "points"),
    [
        (b"Metadata-Version: 2.1\nName: bad\nVersion: 1\n", b"[headwise.head_scoring]\nno equals sign\n"),
        (b"Metadata-Version: 2.1\nName: bad\nVersion: 1\n", b"[headwise.head_scoring]\nx = \xff\xfe\n"),
        (b"Metadata-Version: 2.1\nName: bad\nVersion: 1\n", b"[headwise.head_scoring]\nwith blanks = no module\n"),
        (b"Metadata-Version: 2.1\nName: bad\nVersion: 1\n", b"no section = a:b\n[headwise.head_scoring]\nx = a:b\n"),
        (b"", b"[headwise.head_scoring]\nx = a:b\n"),
        (b"\xff\xfe\xff", b"[headwise.head_scoring]\nx = a:b\n"),
        (None, b"[headwise.head_scoring]\nx = a:b\n"),
        (b"Metadata-Version: 2.1\nName: b a d\n", b"[headwise.head_scoring]\nx = :\n[headwise.command]\ny = ?\n"),
    ],
)
def test_a_broken_distribution_spoils_nothing_but_its_own(tmp_path, monkeypatch, capsys, metadata, points):
    info = tmp_path / "bad-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(points)
    if metadata is not None:
        (info / "METADATA").write_bytes(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    assert "sum" in installed("head_scoring")
    assert {"sum", "entropy"} <= {row.name for row in rows("head_scoring")}
    assert main(["strategies"]) == main(["strategies", "--json"]) == main(["--help"]) == 0
    assert main(["plan", "--shape", "demo-llava", "--strategy", "head_scoring=x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_distribution_that_cannot_be_read_is_named_where_something_is_missing(tmp_path, monkeypatch):
    info = tmp_path / "bad-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[headwise.head_scoring]\nmine\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StrategyError, match="the entry points of bad 1 cannot be read"):
        Registry.installed("head_scoring").build("mine")


def test_the_first_of_two_copies_of_a_distribution_counts(install, tmp_path, monkeypatch):
    install("extra", "2.0", {"head_scoring": {"mine": "extra_mine:Mine"}}, extra_mine="")
    twin = tmp_path / "twin" / "extra-1.0.dist-info"
    twin.mkdir(parents=True)
    (twin / "METADATA").write_text("Metadata-Version: 2.1\nName: Extra\nVersion: 1.0\n")
    (twin / "entry_points.txt").write_text("[headwise.head_scoring]\nmine = other:Other\n")
    monkeypatch.syspath_prepend(twin.parent)
    assert [entry.value for entry in installed("head_scoring")["mine"]] == ["other:Other"]


def test_a_third_party_name_like_a_default_makes_only_typed_texts_ambiguous(install):
    groups = {"head_scoring": {"sum": "extra_mine:Mine", "sparsity": "extra_mine:Mine"}, "head_count": {"all": "x:X"}}
    install("extra", "2.0", groups, extra_mine=SOURCE.format(built="pass", asked="return attention.sum(-1)"))
    assert Recipe.of("fastv", keep=4).strategies["head_scoring"].owner.startswith("headwise ")
    assert Recipe.of(name="sparsevlm", keep=4).strategies["head_count"].owner.startswith("headwise ")
    assert Recipe.of("extra/sum").strategies["head_scoring"].owner == "extra 2.0"
    assert Recipe.of("headwise/sum").strategies["head_scoring"].owner.startswith("headwise ")
    with pytest.raises(StrategyError, match="write OWNER/sum"):
        Recipe.of("head_scoring=sum")


@pytest.mark.parametrize("keep", [None, 2.0, True, "2", -1, 2**40, float("nan")])
def test_a_stage_counts_in_whole_numbers(keep):
    with pytest.raises((TypeError, ValueError), match="keep="):
        Stage(2, keep, lambda evidence: evidence)
    with pytest.raises((TypeError, ValueError), match="layer="):
        Stage(keep, 2, lambda evidence: evidence)


@pytest.mark.parametrize("name", ["sinks", "recent", "every", "queries", "levels"])
@pytest.mark.parametrize("value", [-1, None, 1.5, True, 2**31])
def test_a_score_plan_counts_in_whole_numbers(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name}="):
        ScorePlan(geometry=None, score=lambda evidence: evidence, ratio=0.5, **{name: value})


@pytest.mark.parametrize("value", [1.5, None, True, "3", float("inf")])
def test_windows_are_whole_numbers(value):
    with pytest.raises(ValueError, match="whole numbers"):
        WindowPlan.uniform(geometry_of("demo-llava"), 4, value)
