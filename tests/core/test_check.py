"""``headwise check``: every law with its verdict, mistakes on one screen, and a status that scripts can read."""

from __future__ import annotations

import ast
import json
import re

import pytest

import headwise
from headwise.cli import main
from headwise.testing import ConformanceError, Sample, laws

CLUMSY = """
from headwise import hookimpl

class Clumsy:
    '''Fails on the first batch of more than two rows.'''

    @hookimpl
    def head_scoring(self, attention):
        if attention.shape[0] > 2:
            raise ValueError("three rows are a crowd")
        return attention.sum(dim=-1)
"""


@pytest.fixture
def clumsy(install):
    install("zebra", "1.2", {"head_scoring": {"clumsy": "clumsy:Clumsy"}}, clumsy=CLUMSY)


def test_every_law_of_a_sound_strategy_is_listed_with_what_it_demands(capsys):
    assert main(["check", "entropy"]) == 0
    told = capsys.readouterr().out
    for hook in ("head_scoring", "head_classification"):  # both have a strategy of that name
        for name, law in laws(hook).items():
            assert f"  ok  {name}: {law.__doc__.strip().partition(chr(10))[0]}" in told


def test_a_broken_law_shows_the_smallest_input_and_the_line_of_the_strategy(clumsy, capsys):
    assert main(["check", "clumsy"]) == 1
    told = capsys.readouterr().out
    assert "BROKEN  shape_dtype_device" in told
    assert "three rows are a crowd" in " ".join(told.split())
    assert re.search(r"at .*clumsy\.py:10: raise ValueError", told)
    assert "other laws are not tried" in told
    (again,) = re.findall(r"again: headwise\.testing\.reproduce\((.*)\)$", told, flags=re.MULTILINE)
    call = ast.parse(re.search(r"headwise\.testing\.(Sample\(.*?\))", again)[1], mode="eval").body
    sample = Sample(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})
    assert (sample.heads, sample.visual, sample.kind, sample.seed) == (8, 9, "diffuse", 0)
    assert sample.rows > 2
    with pytest.raises(ConformanceError, match="three rows are a crowd"):
        headwise.testing.reproduce("head_scoring", "clumsy", "shape_dtype_device", sample)


def test_what_is_expected_to_break_must_break(capsys):
    assert main(["check", "head_scoring=random"]) == 1
    assert "BROKEN  heads_permute" in capsys.readouterr().out
    assert main(["check", "head_scoring=random", "--expect", "heads_permute", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [one["law"] for one in records if one["problem"]] == ["heads_permute"]
    assert {record["hook"] for record in records} == {"head_scoring"}
    assert main(["check", "head_scoring=sum", "--expect", "finite"]) == 1
    assert "HOLDS, though it is expected not to  finite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "unknown strategy 'nosuch'"),
        (["fastv", "--expect", "speed"], "--expect speed: token_pruning has no such law; its laws are plan_is_valid"),
        (["recipe=fastv"], "recipe=fastv is no strategy of a hook with laws"),
        (["streaming:sinks=many"], "refuses 'streaming:sinks=many'"),
    ],
)
def test_what_cannot_be_checked_is_one_sentence(words, said, capsys):
    assert main(["check", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


def test_a_long_mistake_fits_on_a_screen(install, capsys):
    source = CLUMSY.replace('"three rows are a crowd"', '"wrong " * 5000')
    install("zebra", "1.2", {"head_scoring": {"clumsy": "clumsy:Clumsy"}}, clumsy=source)
    assert main(["check", "clumsy"]) == 1
    assert capsys.readouterr().out.count("\n") < 24
