"""A strategy within a strategy is checked, watched and blamed as one that the user named."""

from __future__ import annotations

import pytest
import torch

from headwise import Recipe, hookimpl
from headwise.composition import Inner, named
from headwise.errors import ContractError, StrategyError
from headwise.pipeline import Pipeline
from headwise.registry import Registry, Strategy

SOURCE = """
import torch
import attrs
from headwise import hookimpl
from headwise.composition import Inner, named

@attrs.frozen(eq=False)
class HalfOf:
    of: str = attrs.field(default="all", converter=lambda text: named("head_count", text))
    _inner: Inner = attrs.field(init=False, factory=Inner)

    @hookimpl
    def head_count(self, scores):
        return (self._inner.run(head_count=self.of).count_heads(scores) + 1) // 2

class TooMany:
    @hookimpl
    def head_count(self, scores):
        return torch.full(scores.shape[:1], 99)

class Fails:
    @hookimpl
    def head_count(self, scores):
        raise RuntimeError("no idea")
"""
ATTENTION = torch.rand(2, 8, 5, generator=torch.Generator().manual_seed(0))


class Watch:
    def __init__(self):
        self.calls = []

    @hookimpl(wrapper=True)
    def head_count(self, scores):
        counts = yield
        self.calls.append(counts.tolist())
        return counts


@pytest.fixture(autouse=True)
def zebra(install):
    entries = {"half_of": "zebra:HalfOf", "too_many": "zebra:TooMany", "fails": "zebra:Fails"}
    install("zebra", "1.2", {"head_count": entries}, zebra=SOURCE)


def chosen(recipe, *observers):
    return Pipeline(recipe, observers).choose_heads(ATTENTION, 1.0, lambda: torch.zeros(2)).kept.sum(dim=-1).tolist()


def test_the_inner_strategy_answers_with_its_options():
    assert chosen(Recipe.of("half_of")) == [4, 4]
    assert chosen(Recipe.of("half_of:of=[fixed:heads=5]")) == [3, 3]
    assert Registry.installed("head_count").build("half_of:of=score_gap").text == "half_of:of=score_gap:sd=0.8"


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("too_many", "head_count strategy 'too_many' (zebra 1.2) wants 99 heads; this model has 1..8 to choose from"),
        ("fails", "head_count strategy 'fails' (zebra 1.2) failed: RuntimeError: no idea"),
    ],
)
def test_what_is_wrong_within_names_who_did_it(of, message):
    with pytest.raises(ContractError) as caught:
        chosen(Recipe.of(f"half_of:of={of}"))
    assert message == str(caught.value)


def test_a_text_that_names_no_strategy_of_the_hook_is_refused_when_it_is_given():
    with pytest.raises(StrategyError, match="unknown head_count strategy 'sum'"):
        named("head_count", "sum")
    with pytest.raises(StrategyError, match="has no option 'size'"):
        Inner().run(head_count="all:size=3")


def test_observers_of_the_run_around_see_the_inner_call_and_those_of_earlier_runs_do_not():
    recipe = Recipe.of("half_of:of=[fixed:heads=6]")
    first, second = Watch(), Watch()
    assert chosen(recipe, first) == chosen(recipe, second) == chosen(recipe) == [3, 3]
    assert first.calls == second.calls == [[6, 6], [3, 3]]


def test_an_inner_strategy_is_built_once_and_its_run_is_kept():
    inner = Inner()
    run = inner.run(head_count="fixed:heads=2")
    assert inner.run(head_count="fixed:heads=2") is run
    assert inner.run(head_count="fixed:heads=3") is not run
    built = run.recipe.strategies["head_count"]

    class Asks:
        @hookimpl
        def head_count(self, scores):
            self.seen = inner.run(head_count="fixed:heads=2")
            return self.seen.count_heads(scores)

    asking = Asks()
    around = Recipe(strategies={"head_count": Strategy("head_count", "asks", "zebra 1.2", asking)})
    Pipeline(around, [Watch()]).count_heads(torch.zeros(1, 4))
    assert asking.seen is not run
    assert asking.seen.recipe.strategies["head_count"] is built


def test_every_shipped_strategy_that_uses_others_lets_observers_see_them():
    watch = Watch()
    run = Pipeline(Recipe.of("median_of_three"), [watch])
    run.count_heads(torch.rand(1, 8, generator=torch.Generator().manual_seed(1)))
    assert len(watch.calls) == 4
