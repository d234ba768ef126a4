"""Hook contract 1.x: a package that was written for 1.0 works, and what was written for another is refused."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
import torch

import headwise
import headwise.testing
from headwise.cli import main
from headwise.errors import StrategyError
from headwise.hookspecs import CONTRACT, Specs
from headwise.registry import built, installed, resolve
from headwise.testing.kit import check as hold

FROZEN = Path(__file__).parents[1] / "contract_1_0"
GROUPS = {
    "query_selection": {"first_text_1_0": "contract_1_0.first_text:FirstText"},
    "head_scoring": {"spread_1_0": "contract_1_0.spread:Spread"},
    "head_count": {"few_1_0": "contract_1_0.few:Few", "above_mean_1_0": "contract_1_0.above_mean:AboveMean"},
    "token_pruning": {"steps_1_0": "contract_1_0.steps:Steps"},
    "kv_eviction": {"long_values_1_0": "contract_1_0.long_values:LongValues"},
    "head_classification": {"sink_heads_1_0": "contract_1_0.sink_heads:SinkHeads"},
    "observers": {"diary_1_0": "contract_1_0.diary:Diary"},
    "recipe": {"recipe_1_0": "contract_1_0.recipes:RECIPE", "plain_1_0": "contract_1_0.recipes:PLAIN"},
    "benchmark": {"dots-1-0": "contract_1_0.dots:Dots"},
}
ARGUMENTS = {
    "query_selection": {"layout", "embeddings"},
    "head_scoring": {"attention", "target", "share", "seeds", "note"},
    "head_count": {"scores"},
    "token_pruning": {"geometry", "budget"},
    "kv_eviction": {"geometry", "profile"},
    "head_classification": {"statistics"},
    "selected": {"selection"},
}
"""What every hook passed in contract 1.0; more may come, none may go."""

NAMES = {
    *("Budget", "BudgetError", "CacheEvidence", "ContractError", "DataError", "Geometry", "HOOKS", "HeadLabels"),
    *("HeadProfile", "HeadStatistics", "HeadwiseError", "Layout", "Merged", "ModelError", "Pipeline", "Preset"),
    *("PruningPlan", "Queries", "Recipe", "Registry", "ScorePlan", "Selection", "Stage", "StrategyError"),
    *("WindowPlan", "attach", "cache", "hookimpl", "resolve", "shape"),
}
"""What could be imported from headwise in contract 1.0."""


@pytest.fixture
def frozen(install, monkeypatch):
    install("contract-1-0", "1.0", GROUPS)
    monkeypatch.syspath_prepend(str(FROZEN))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "contract_1_0"]:
        del sys.modules[name]


def test_no_hook_has_gone_and_none_passes_less():
    assert CONTRACT[0] == 1
    for hook, arguments in ARGUMENTS.items():
        assert arguments <= set(inspect.signature(getattr(Specs, hook)).parameters), hook
    assert set(headwise.__all__) >= NAMES


LAWS = [(hook, name, law) for hook, entries in GROUPS.items() if hook not in ("observers", "recipe")
        for name in entries for law in headwise.testing.laws(hook)]  # fmt: skip


@pytest.mark.parametrize(("hook", "name", "law"), LAWS)
def test_a_plugin_of_contract_1_0_keeps_todays_laws(frozen, hook, name, law):
    hold(hook, name, law)


def test_recipes_and_observers_of_contract_1_0_work(frozen):
    for name in GROUPS["recipe"]:
        diary = built(installed("observers")["diary_1_0"][0])
        pipeline = headwise.Pipeline(headwise.Recipe.of(name=name, tokens=192), [diary])
        assert pipeline.plan(headwise.shape("llava-1.5-7b")).kept == 166
        attention = torch.rand(2, 8, 16)
        choice = pipeline.choose_heads(attention, 0.3, lambda: torch.zeros(2, dtype=torch.int64))
        assert int(choice.kept[0].sum()) == 4
        assert diary.scored == 1


WRITTEN = """
from headwise import hookimpl

class Mine:
    hook_contract = {contract}

    @hookimpl
    def head_scoring(self, attention):
        return attention.sum(dim=-1)
"""


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        ("'2.0'", "is written for hook contract 2.0, and this is 1.0; install a newer headwise"),
        ("'1.7'", "is written for hook contract 1.7, and this is 1.0; install a newer headwise"),
        ("'0.9'", "is written for hook contract 0.9, and this is 1.0; install a newer version of it"),
        ("1.0", "has hook_contract=1.0; wanted two numbers as text, such as '1.0'"),
        ("'one'", "has hook_contract='one'; wanted two numbers as text, such as '1.0'"),
    ],
)
def test_what_is_written_for_another_contract_is_refused_in_one_sentence(install, capsys, contract, said):
    install("other", "3.1", {"head_scoring": {"other_mine": "other_mod:Mine"}},
            other_mod=WRITTEN.format(contract=contract))  # fmt: skip
    with pytest.raises(StrategyError, match="other_mine"):
        resolve("other_mine")
    assert main(["check", "other_mine"]) == 2
    err = capsys.readouterr().err
    assert err == f"headwise: head_scoring strategy 'other_mine' (other 3.1) {said}\n"


def test_what_is_written_for_this_contract_is_taken(install):
    install("ours", "1", {"head_scoring": {"ours_mine": "ours_mod:Mine"}}, ours_mod=WRITTEN.format(contract="'1.0'"))
    assert resolve("ours_mine").name == "ours_mine"
