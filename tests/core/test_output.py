"""Under ``--json`` standard output holds what was asked for, whatever plugins print."""

from __future__ import annotations

import json

import pytest

from headwise.cli import main
from headwise.output import answer

SOURCE = """
print("imported")
from headwise import PruningPlan, hookimpl
class Mine:
    def __init__(self):
        print("built")
    @hookimpl
    def token_pruning(self, geometry, budget):
        print("asked")
        return PruningPlan(geometry)
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_what_a_plugin_prints_does_not_reach_json(install, capsys, as_json):
    install("extra", "2.0", {"token_pruning": {"mine": "chatty:Mine"}}, chatty=SOURCE)
    words = ["plan", "--shape", "demo-llava", "--strategy", "mine", *(["--json"] if as_json else [])]
    assert main(words) == 0
    out, err = capsys.readouterr()
    said = err if as_json else out
    assert [word in said for word in ("imported", "built", "asked")] == [True] * 3
    if as_json:
        assert json.loads(out)["strategies"]["token_pruning"] == "mine"


def test_an_answer_without_json_goes_where_everything_goes(capsys):
    answer("yes")
    assert capsys.readouterr().out == "yes\n"
