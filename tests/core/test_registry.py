"""Finding strategies: every sentence a user can meet between a name and a built strategy.

Distributions are made up on sys.path; names are far from those that headwise ships, so that hints are predictable.
"""

from __future__ import annotations

import sys

import pytest

from headwise.errors import StrategyError
from headwise.recipe import Preset, Recipe, named_recipe
from headwise.registry import Registry, installed, resolve

STRIPES = """
import attrs
from headwise import hookimpl

@attrs.frozen(eq=False)
class Stripes:
    width: int = attrs.field(default=2, converter=int, validator=attrs.validators.ge(1))
    shade: float = attrs.field(default=0.5, converter=float)

    @hookimpl
    def head_scoring(self, attention):
        return attention.sum(dim=-1)

class Spots:
    @hookimpl
    def head_count(self, scores):
        return scores

class Both:
    @hookimpl
    def head_count(self, scores): ...
    @hookimpl
    def head_scoring(self, attention): ...

class Misspelt:
    @hookimpl
    def head_scoring(self, attentoin): ...

class Bare:
    pass

def factory():
    return Stripes

CONSTANT = 3
RECIPE = ("head_scoring=zebra_stripes:width=3",)
NO_RECIPE = ["zebra_stripes"]
"""


def scorers(**entries):
    return {"head_scoring": {name: f"zebra_mod:{attribute}" for name, attribute in entries.items()}}


def message_of(call, *arguments, **keywords):
    with pytest.raises(StrategyError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


@pytest.fixture
def zebra(install):
    """One strategy that works, from a distribution of its own."""
    install("zebra", "1.2", scorers(zebra_stripes="Stripes"), zebra_mod=STRIPES)
    return Registry.installed("head_scoring")


def test_strategy_is_found_by_name_and_built_with_its_options(zebra):
    strategy = zebra.build("zebra_stripes:width=3")
    assert (strategy.hook, strategy.name, strategy.owner) == ("head_scoring", "zebra_stripes", "zebra 1.2")
    assert strategy.text == "zebra_stripes:width=3,shade=0.5"


def test_nothing_is_imported_until_a_strategy_is_built(install):
    install("zebra", "1.2", scorers(zebra_stripes="Stripes"), zebra_mod=STRIPES)
    registry = Registry.installed("head_scoring")
    assert "zebra_stripes" in registry.found
    assert "zebra_mod" not in sys.modules


def test_bare_name_finds_the_hook_it_belongs_to(zebra):
    assert resolve("zebra_stripes").hook == "head_scoring"


def test_unknown_name_suggests_what_was_probably_meant(zebra):
    expected = "unknown head_scoring strategy 'zebra_strips'; did you mean zebra_stripes?"
    assert expected == message_of(zebra.build, "zebra_strips")
    assert message_of(resolve, "zebra_strips") == "unknown strategy 'zebra_strips'; did you mean zebra_stripes?"


def test_name_that_resembles_nothing_lists_the_known_ones(zebra):
    only = Registry("head_scoring", {"zebra_stripes": zebra.found["zebra_stripes"]})
    assert message_of(only.build, "qqq") == "unknown head_scoring strategy 'qqq'; known: zebra_stripes"


def test_hook_without_any_strategy_says_so():
    registry = Registry("kv_eviction", {})
    assert message_of(registry.build, "qqq") == "unknown kv_eviction strategy 'qqq'; none is installed"


def test_bare_name_that_resembles_nothing_points_to_the_listing():
    expected = "unknown strategy 'qqqqq'; `headwise strategies` lists what is installed"
    assert expected == message_of(resolve, "qqqqq")


def test_unknown_hook_names_the_hooks():
    assert message_of(resolve, "head_scorin=sum") == (
        "unknown hook 'head_scorin'; did you mean head_scoring or head_count?; hooks are query_selection, head_scoring,"
        " head_count, token_pruning, kv_eviction, head_classification"
    )


def test_unknown_option_names_the_known_ones(zebra):
    assert message_of(zebra.build, "zebra_stripes:widht=3") == (
        "head_scoring strategy 'zebra_stripes' (zebra 1.2) has no option 'widht'; did you mean width?;"
        " its options are width, shade"
    )


def test_option_of_a_strategy_without_options_is_refused(install):
    install("zebra", "1.2", {"head_count": {"zebra_spots": "zebra_mod:Spots"}}, zebra_mod=STRIPES)
    expected = "head_count strategy 'zebra_spots' (zebra 1.2) has no option 'size'; it has none"
    assert expected == message_of(resolve, "zebra_spots:size=1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("zebra_stripes:width=wide", "'wide' is not a whole number"),
        ("zebra_stripes:width=0", "'width' must be >= 1: 0"),
    ],
)
def test_option_value_that_does_not_fit_is_refused_in_the_strategys_words(zebra, text, reason):
    expected = f"head_scoring strategy 'zebra_stripes' (zebra 1.2) refuses {text!r}: {reason}"
    assert expected == message_of(zebra.build, text)


def test_clash_names_both_distributions_and_an_owner_picks_one(install):
    install("zebra", "1.2", scorers(zebra_stripes="Stripes"), zebra_mod=STRIPES)
    install("quagga", "0.9", {"head_scoring": {"zebra_stripes": "quagga_mod:Stripes"}}, quagga_mod=STRIPES)
    assert message_of(resolve, "zebra_stripes") == (
        "head_scoring strategy 'zebra_stripes' is provided by quagga 0.9, zebra 1.2;"
        " write OWNER/zebra_stripes or uninstall one"
    )
    assert resolve("quagga/zebra_stripes").owner == "quagga 0.9"
    assert resolve("head_scoring=zebra/zebra_stripes:width=1").owner == "zebra 1.2"


def test_owner_that_does_not_ship_the_name_is_named(zebra):
    expected = "unknown head_scoring strategy 'zebra_stripes' from 'quagga'; did you mean zebra_stripes?"
    assert expected == message_of(zebra.build, "quagga/zebra_stripes")


def test_name_of_two_hooks_lists_the_qualified_forms(install):
    install(
        "zebra",
        "1.2",
        scorers(zebra_stripes="Stripes") | {"head_count": {"zebra_stripes": "zebra_mod:Spots"}},
        zebra_mod=STRIPES,
    )
    assert message_of(resolve, "zebra_stripes") == (
        "strategy 'zebra_stripes' exists for more than one hook;"
        " write head_scoring=zebra_stripes or head_count=zebra_stripes"
    )
    assert resolve("head_count=zebra_stripes").hook == "head_count"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_gpu_library", "No module named 'no_such_gpu_library'"),
        ("def broken(:", "invalid syntax"),
        ("raise RuntimeError('needs a GPU\\nor two')", "needs a GPU"),
        ("Stripe = 1", "module 'zebra_mod' has no attribute 'Stripes'"),
    ],
    ids=["missing library", "syntax error", "its own error", "missing class"],
)
def test_broken_import_names_distribution_version_and_cause(install, source, reason):
    install("zebra", "1.2", scorers(zebra_stripes="Stripes"), zebra_mod=source)
    expected = f"'zebra_stripes' from zebra 1.2 (zebra_mod:Stripes) does not import: {reason}"
    assert expected == message_of(resolve, "zebra_stripes")


def test_broken_neighbour_does_no_harm(install):
    install(
        "quagga", "0.9", {"head_scoring": {"quagga_stripes": "quagga_mod:Stripes"}}, quagga_mod="import nowhere_at_all"
    )
    install("zebra", "1.2", scorers(zebra_stripes="Stripes"), zebra_mod=STRIPES)
    assert resolve("zebra_stripes").owner == "zebra 1.2"


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [
        ("Spots", "implements head_count; a head_scoring strategy implements head_scoring and no other"),
        ("Both", "implements head_scoring, head_count; a head_scoring strategy implements head_scoring and no other"),
        ("Bare", "implements no hook; a head_scoring strategy implements head_scoring and no other"),
        ("factory", "is a class that was not built; its entry point must name the class itself"),
    ],
)
def test_strategy_implements_its_own_hook_and_no_other(install, attribute, problem):
    install("zebra", "1.2", scorers(zebra_stripes=attribute), zebra_mod=STRIPES)
    assert f"head_scoring strategy 'zebra_stripes' (zebra 1.2) {problem}" == message_of(resolve, "zebra_stripes")


def test_entry_point_that_is_no_class_or_function_is_refused(install):
    install("zebra", "1.2", scorers(zebra_stripes="CONSTANT"), zebra_mod=STRIPES)
    assert message_of(resolve, "zebra_stripes") == (
        "head_scoring strategy 'zebra_stripes' (zebra 1.2): zebra_mod:CONSTANT is not a class or function,"
        " so it cannot be built"
    )


def test_argument_a_hook_does_not_have_is_refused_when_a_run_is_set_up(install):
    from headwise.pipeline import Pipeline

    install("zebra", "1.2", scorers(zebra_stripes="Misspelt"), zebra_mod=STRIPES)
    recipe = Recipe(strategies={"head_scoring": resolve("zebra_stripes")})
    assert message_of(Pipeline, recipe) == (
        "head_scoring strategy 'zebra_stripes' (zebra 1.2) does not fit its hook: Argument(s) {'attentoin'} are"
        " declared in the hookimpl but can not be found in the hookspec"
    )


def test_installed_names_come_sorted(install):
    install("zebra", "1.2", {"kv_eviction": {"b": "m:B", "a": "m:A", "c": "m:C"}})
    names = [name for name in installed("kv_eviction") if name in "abc"]
    assert names == ["a", "b", "c"]


def test_recipe_is_found_by_name(install):
    install(
        "zebra",
        "1.2",
        scorers(zebra_stripes="Stripes") | {"recipe": {"zebra_recipe": "zebra_mod:RECIPE"}},
        zebra_mod=STRIPES,
    )
    assert named_recipe("zebra_recipe") == Preset("head_scoring=zebra_stripes:width=3")


def test_recipe_that_is_no_tuple_of_texts_is_refused(install):
    install("zebra", "1.2", {"recipe": {"zebra_recipe": "zebra_mod:NO_RECIPE"}}, zebra_mod=STRIPES)
    expected = "recipe 'zebra_recipe' (zebra 1.2) is a list; wanted a headwise.Preset or a tuple of strategy texts"
    assert expected == message_of(named_recipe, "zebra_recipe")


def test_unknown_recipe_suggests_what_was_probably_meant(install):
    install("zebra", "1.2", {"recipe": {"zebra_recipe": "zebra_mod:RECIPE"}}, zebra_mod=STRIPES)
    expected = "unknown recipe 'zebra_recip'; did you mean zebra_recipe?"
    assert expected == message_of(named_recipe, "zebra_recip")
