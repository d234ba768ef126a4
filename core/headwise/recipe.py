"""A recipe: everything that decides which tokens stay, as texts. The same words on the command line and in Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from headwise.blame import blamed
from headwise.budget import Budget
from headwise.errors import HeadwiseError, StrategyError
from headwise.heads import HeadProfile
from headwise.reading import shown
from headwise.registry import Strategy, installed, load, only, owner_of, resolve

DEFAULTS = {
    "query_selection": "last_token",
    "head_scoring": "sum",
    "head_count": "all",
    "token_pruning": "none",
}
"""What serves a hook that no strategy is named for: together they prune nothing. Without a ``kv_eviction`` strategy
the cache is stock."""

OWN = "headwise"
"""Whose strategies are meant by the names in recipes and defaults, should another distribution take one of them."""

RECIPE_HOOKS = (*DEFAULTS, "kv_eviction")
"""Hooks that a recipe may name a strategy for; classifying heads is a job of its own."""

ASKED = ("query_selection", "head_scoring", "head_count")
"""Hooks that a strategy may ask a strategy for: whose attention decides."""

POSITIONS = ("keep", "compact")
AGGREGATES = ("mean", "normalised", "weighted")
SETTINGS = ("positions", "aggregate", "min_mass", "sink_share")
"""What a recipe says beside strategies and budget, as far as it may change which tokens stay."""

Settings = dict[str, Any]
"""Name -> value of settings; :class:`Recipe` says what each must be."""


@attrs.frozen(init=False)
class Preset:
    """Strategy texts, and the settings of :class:`Recipe` that are not the usual ones.

    A named recipe is made of it, and what a strategy asks for by default, its attribute ``asks``. Raises StrategyError
    for a setting that recipes do not have.

    >>> Preset("token_pruning=pdrop", positions="compact")
    Preset(strategies=('token_pruning=pdrop',), settings={'positions': 'compact'})
    """

    strategies: tuple[str, ...]
    settings: Settings

    def __init__(self, *strategies: str, **settings: object) -> None:
        unknown = [name for name in settings if name not in SETTINGS]
        if unknown:
            raise StrategyError(f"a recipe has no setting {unknown[0]!r}; settings are {', '.join(SETTINGS)}")
        self.__attrs_init__(strategies, settings)


def _one_of(allowed: Sequence[str], what: str) -> Callable[[object, object, str], None]:
    def check(_: object, __: object, value: str) -> None:
        if value not in allowed:
            raise HeadwiseError(f"{what}={value!r} is not one of {', '.join(allowed)}")

    return check


def _share(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise HeadwiseError(f"{attribute.name}={value:g} is not a share; give a number in 0..1")


def _profile(given: HeadProfile | str | Path | None) -> HeadProfile | None:
    return HeadProfile.load(Path(given)) if isinstance(given, str | Path) else given


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Recipe:
    """Strategies, budget and the few settings that belong to none of them.

    ``positions``: surviving tokens ``keep`` their position ids, or are renumbered (``compact``, as some papers' code
    does). ``aggregate``: kept heads are averaged as they are (``mean``), after each is ``normalised`` to sum 1, or
    ``weighted`` by the softmax of their scores. ``min_mass``: heads that put less than this share of their attention
    on the image cannot be chosen, unless none does more. ``sink_share``: visual tokens that draw more than this share
    of the image attention, averaged over heads, are hidden from head scoring (1 hides none). ``profile``: classes of
    the model's heads for ``kv_eviction`` strategies that need them, or the file `headwise classify-heads` wrote.
    """

    strategies: Mapping[str, Strategy]
    budget: Budget = attrs.field(factory=Budget)
    name: str | None = None
    positions: str = attrs.field(default="keep", validator=_one_of(POSITIONS, "positions"))
    aggregate: str = attrs.field(default="mean", validator=_one_of(AGGREGATES, "aggregate"))
    min_mass: float = attrs.field(default=0.0, converter=float, validator=_share)
    sink_share: float = attrs.field(default=1.0, converter=float, validator=_share)
    profile: HeadProfile | None = attrs.field(default=None, converter=_profile)

    @classmethod
    def of(
        cls,
        *texts: str,
        name: str | None = None,
        tokens: float | None = None,
        keep: int | None = None,
        **settings: object,
    ) -> Recipe:
        """From strategy texts and settings, on top of the named recipe ``name`` where one is given.

        A setting that is None counts as not given. A hook whose strategy is exchanged loses what the named recipe said
        for it; everything else of the recipe stays. Where neither says anything, a hook or setting is what the chosen
        strategies ask for (:func:`with_asked`), and what none asks for is ``DEFAULTS``. Raises StrategyError for two
        strategies of one hook, and for what cannot be built; BudgetError, DataError and HeadwiseError for values.

        >>> Recipe.of("fastv:layer=2", "sparsity", "fixed:heads=4", keep=16)  # doctest: +SKIP
        """
        preset = named_recipe(name) if name else Preset()
        base = [resolve(text, RECIPE_HOOKS, prefer=OWN) for text in preset.strategies]
        wanted: Settings = {**preset.settings, **{key: value for key, value in settings.items() if value is not None}}
        chosen: dict[str, Strategy] = {strategy.hook: strategy for strategy in base}
        given: dict[str, str] = {}
        for text in texts:
            strategy = resolve(text, RECIPE_HOOKS)
            if strategy.hook in given:
                raise StrategyError(
                    f"{given[strategy.hook]!r} and {text!r} are both {strategy.hook} strategies; a run has one of each"
                )
            given[strategy.hook] = text
            chosen[strategy.hook] = strategy
        chosen, wanted = with_asked(chosen, wanted)
        for hook, text in DEFAULTS.items():
            if hook not in chosen:
                chosen[hook] = resolve(f"{hook}={text}", prefer=OWN)
        return cls(strategies=chosen, budget=Budget(tokens=tokens, keep=keep), name=name, **wanted)

    def __repr__(self) -> str:
        """Its name, the strategies that are not the usual ones, and the budget, in one line."""
        own = [strategy.text for hook, strategy in self.strategies.items() if strategy.name != DEFAULTS.get(hook)]
        name = "" if self.name is None else f" {self.name}"
        return f"<recipe{name}: {', '.join(own) or 'nothing is thrown away'}; {self.budget.text}>"

    @property
    def text(self) -> str:
        """Canonical strategy texts, qualified by hook and with every option, in one line."""
        return " ".join(f"{hook}={strategy.text}" for hook, strategy in self.strategies.items())

    @property
    def settings(self) -> Settings:
        """The settings beside strategies and budget, as plain data."""
        return {key: getattr(self, key) for key in SETTINGS}


def asked_by(strategy: Strategy) -> Preset:
    """What a strategy wants asked where the user says nothing else: its attribute ``asks``, if it has one.

    Raises StrategyError where that is no Preset, ContractError where it cannot be read.
    """
    with blamed(strategy.who):
        # getattr with a default would hide an AttributeError that is raised within a property.
        asks = strategy.plugin.asks if "asks" in dir(strategy.plugin) else Preset()
    if not isinstance(asks, Preset):
        raise StrategyError(f"{strategy.who} has asks={shown(asks)}; wanted a headwise.Preset")
    return asks


def with_asked(chosen: Mapping[str, Strategy], settings: Settings) -> tuple[dict[str, Strategy], Settings]:
    """Strategies and settings, and beside them what the strategies ask for by default where nothing is chosen.

    Where several ask for the same hook, the first in the order of ``RECIPE_HOOKS`` is followed: what a head_scoring
    strategy needs comes before what a token_pruning strategy usually has.
    """
    found, given = dict(chosen), dict(settings)
    waiting = [chosen[hook] for hook in RECIPE_HOOKS if hook in chosen]
    for strategy in waiting:  # the list grows: a strategy that is asked for may ask for others
        asks = asked_by(strategy)
        for text in asks.strategies:
            asked = resolve(text, ASKED, prefer=OWN)
            if asked.hook not in found:
                found[asked.hook] = asked
                waiting.append(asked)
        given = {**asks.settings, **given}
    return found, given


def named_recipe(name: str) -> Preset:
    """An installed recipe (entry points ``headwise.recipe``): a :class:`Preset`, or a plain tuple of strategy texts.

    Raises StrategyError for a name that is not installed, does not import, or is neither.
    """
    entry = only("recipe", name, installed("recipe"))
    found = load(entry)
    if isinstance(found, tuple) and all(isinstance(text, str) for text in found):
        return Preset(*found)
    if not isinstance(found, Preset):
        raise StrategyError(
            f"recipe {name!r} ({owner_of(entry)}) is a {type(found).__name__};"
            " wanted a headwise.Preset or a tuple of strategy texts"
        )
    return found
