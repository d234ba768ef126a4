"""What a strategy wants asked by default stands with the strategy; what a user names overrides it."""

from __future__ import annotations

import pytest

from headwise import HeadwiseError, Pipeline, Recipe, shape
from headwise.cli import main
from headwise.recipe import ASKED

PUBLISHED = {
    "fastv": ("last_token", "sum", "all"),
    "feather": ("last_token", "sum", "all"),
    "pdrop": ("last_token", "sum", "all"),
    "pdrop:early=2": ("last_token", "sum", "all"),
    "sparsevlm": ("raters:scale=none", "sum", "all"),
    "sparsevlm:published=96": ("raters:scale=none", "sum", "all"),
    "sparsevlm:variant=plus": ("raters:scale=none", "sum", "fixed:share=0.5"),
    "sparsevlm:variant=plus,published=64": ("raters:scale=none", "sum", "fixed:share=0.5"),
}
"""Spec 1 (visual pruning): who asks, and which heads are heard, in each method's own code."""


def asked(recipe):
    """Texts of query selection, head scoring and head count."""
    return tuple(recipe.strategies[hook].text for hook in ASKED)


@pytest.mark.parametrize(("text", "expected"), PUBLISHED.items())
def test_a_method_named_alone_asks_what_its_paper_asks(text, expected):
    recipe = Recipe.of(text)
    assert asked(recipe) == expected
    told = recipe.text.split()
    assert all(f"{hook}={text}" in told for hook, text in zip(ASKED, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "text"),
    [("fastv", "fastv:layer=2"), ("feather", "feather"), ("pdrop", "pdrop"), ("pdrop-early", "pdrop:early=2"),
     ("sparsevlm", "sparsevlm"), ("sparsevlm-plus", "sparsevlm:variant=plus")],
)  # fmt: skip
def test_a_method_asks_the_same_by_its_own_name_and_as_a_recipe(name, text):
    alone, named = Recipe.of(f"token_pruning={text}"), Recipe.of(name=name)
    assert (alone.text, alone.settings) == (named.text, named.settings)


@pytest.mark.parametrize("name", [None, "sparsevlm"])
def test_what_a_user_names_is_asked_and_the_rest_stays_the_methods(name):
    recipe = Recipe.of("sparsevlm:published=96", "last_token", name=name)
    assert asked(recipe) == ("last_token", "sum", "all")
    recipe = Recipe.of("sparsevlm:variant=plus", "sparsity", "fixed:heads=4", name=name)
    assert asked(recipe) == ("raters:scale=none", "sparsity:form=l2", "fixed:heads=4")


def test_what_a_method_asks_leaves_with_it():
    assert asked(Recipe.of("fastv", name="sparsevlm")) == ("last_token", "sum", "all")
    assert asked(Recipe.of("sparsevlm", name="fastv")) == ("raters:scale=none", "sum", "all")
    assert asked(Recipe.of("sparsevlm", name="finepruner")) == (
        "raters:scale=none",
        "sparsity:form=l2",
        "fixed:share=0.5",
    )


def test_a_scorer_is_heard_before_the_method_on_how_heads_are_counted():
    assert asked(Recipe.of("sparsevlm:variant=plus", "adaptive")) == ("raters:scale=none", "adaptive", "all")
    assert asked(Recipe.of("sparsevlm:variant=plus", "adaptive", "fixed:heads=3"))[2] == "fixed:heads=3"


def test_what_nobody_asks_for_is_the_usual():
    assert asked(Recipe.of("divprune")) == asked(Recipe.of()) == ("last_token", "sum", "all")


ZEBRA = """
import attrs
from headwise import Preset, PruningPlan, Stage, hookimpl

@attrs.frozen(eq=False)
class Herd:
    '''Follows the herd.'''

    wild: bool = attrs.field(default=False, converter=bool)

    @property
    def asks(self):
        return {asks}

    @hookimpl
    def token_pruning(self, geometry, budget):
        keep = budget.one_stage(geometry, 2)
        return PruningPlan(geometry, (Stage(2, keep, lambda evidence: evidence.attention(), reads=("attention",)),))

@attrs.frozen(eq=False)
class Leader:
    '''One head decides.'''

    asks = Preset("head_count=fixed:heads=1", min_mass=0.01)

    @hookimpl
    def head_scoring(self, attention):
        return attention.sum(dim=-1)
"""


@pytest.fixture
def zebra(install):
    def make(asks):
        hooks = {"token_pruning": {"herd": "zebra_mod:Herd"}, "head_scoring": {"leader": "zebra_mod:Leader"}}
        install("zebra", "1.2", hooks, zebra_mod=ZEBRA.replace("{asks}", asks))

    return make


def test_a_third_party_method_asks_strategies_and_settings_and_those_ask_in_turn(zebra, capsys):
    zebra('Preset("leader", "last_n_tokens:n=2", positions="compact", min_mass=0.5)')
    recipe = Recipe.of("herd")
    assert asked(recipe) == ("last_n_tokens:n=2", "leader", "fixed:heads=1")
    assert (recipe.positions, recipe.min_mass) == ("compact", 0.5)
    assert (Recipe.of("herd", positions="keep").positions, Recipe.of("herd", min_mass=0.0).min_mass) == ("keep", 0.0)
    assert Recipe.of("herd", "leader").min_mass == 0.01  # a scorer that is named comes first
    assert main(["show", "herd"]) == 0
    shown = "asked by default\n  leader\n  last_n_tokens:n=2\n  positions=compact\n  min_mass=0.5\n"
    assert capsys.readouterr().out.endswith(shown)


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        (
            '"raters"',
            "token_pruning strategy 'herd:wild=false' (zebra 1.2) has asks='raters'; wanted a headwise.Preset",
        ),
        ('Preset("token_pruning=fastv")', "token_pruning=fastv"),
        ('Preset("snapkv")', "snapkv"),
        ('Preset("no_such")', "no_such"),
        ('Preset("raters", speed=3)', "a recipe has no setting 'speed'"),
        ("self.lost", "'herd:wild=false' (zebra 1.2) failed: AttributeError"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(zebra, asks, message):
    zebra(asks)
    with pytest.raises(HeadwiseError) as caught:
        Recipe.of("herd")
    assert message in str(caught.value)


def test_show_says_what_is_asked(capsys):
    assert main(["show", "token_pruning=sparsevlm"]) == 0
    by_method = capsys.readouterr().out
    said = "  The raters, and of the heads all, or in ``plus`` the half with the largest sum.\n"  # its options decide
    assert by_method.endswith(f"asked by default\n{said}")
    assert main(["show", "recipe=sparsevlm-plus"]) == 0
    assert capsys.readouterr().out.endswith(
        f"strategies\n  token_pruning=sparsevlm:variant=plus\n\nasked by default\n{said}"
    )


def test_published_counts_plan_and_ask_together():
    pipeline = Pipeline(Recipe.of("sparsevlm:published=96"))
    assert [stage.layer for stage in pipeline.plan(shape("llava-1.5-7b")).stages] == [3, 7, 16]
    assert pipeline.reads_embeddings  # as raters do and last_token does not
