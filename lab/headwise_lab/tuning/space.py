"""A search space for one model: the strategies of every hook, and the budgets that each token pruning can meet.

A point asks optuna for one parameter after the other: for an option only if its strategy was chosen, for a hook only if
the pruning reads attention. Points that do the same are written in the same way.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from headwise.budget import Budget
from headwise.errors import BudgetError
from headwise.geometry import Geometry
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise.registry import Registry, installed
from headwise.text import StrategyText
from headwise_lab.sweeps.studies import OWN_COUNT, can_meet, smallest_average
from headwise_lab.sweeps.values import EVERY, known_strategy
from headwise_lab.trial.run import check
from headwise_lab.tuning.ranges import StrategyChoice
from headwise_lab.tuning.schema import SpaceFile

if TYPE_CHECKING:
    from optuna import Trial

ALL_HEADS, PLAIN_SCORER, UNPRUNED = "all", "sum", "none"
PLACES = 4  # decimals of a budget, as in records


@attrs.frozen(eq=False)
class SearchPoint:
    """One point of a space: strategy texts, their recipe with its budget, and the resulting plan."""

    texts: tuple[str, ...]
    recipe: Recipe
    plan: PruningPlan

    @property
    def as_data(self) -> dict[str, object]:
        """Texts and budget, from which ``Space.point`` makes the point again."""
        return {"strategies": list(self.texts), "tokens": self.recipe.budget.tokens}

    @property
    def label(self) -> str:
        """The point in a few words."""
        strategies = ", ".join(text.partition("=")[2] for text in self.texts)
        return f"{strategies} at {self.plan.average:.4g} tokens"


@attrs.frozen(eq=False)
class Space:
    """Strategies by hook, processed averages from ``low`` to ``high``, and settings of all recipes."""

    choices: Mapping[str, tuple[StrategyChoice, ...]]
    low: float
    high: float
    geometry: Geometry
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    _floors: dict[str, float] = attrs.field(factory=dict, init=False)

    def propose(self, trial: Trial) -> SearchPoint:
        """The next point; raises BudgetError or StrategyError where it cannot be run, before the model is used."""
        pruning = self._pick(trial, "token_pruning")
        recipe = self.recipe([pruning], self._budget(trial, pruning))
        plan = check(recipe, self.geometry)
        if not any(stage.reads_attention for stage in plan.stages):
            return SearchPoint((pruning,), recipe, plan)
        texts = (pruning, self._pick(trial, "query_selection"), *self._heads(trial))
        chosen = attrs.evolve(self.recipe(texts), budget=recipe.budget)
        return SearchPoint(texts, chosen, check(chosen, self.geometry))

    def recipe(self, texts: Sequence[str], budget: Budget | None = None) -> Recipe:
        """The recipe of some strategy texts with the settings of the space."""
        return attrs.evolve(_built(tuple(texts), tuple(self.settings.items())), budget=budget or Budget())

    def point(self, texts: Sequence[str], tokens: float | None) -> SearchPoint:
        """The point with these texts and this budget, such as one that was proposed before."""
        recipe = self.recipe(texts, Budget(tokens=tokens))
        return SearchPoint(tuple(texts), recipe, check(recipe, self.geometry))

    def _budget(self, trial: Trial, pruning: str) -> Budget:
        """A budget that the pruning can meet, given as the average that results from it."""
        if StrategyText.parse(pruning.partition("=")[2]).name == UNPRUNED:
            return Budget()
        if pruning not in self._floors:
            recipe = self.recipe([pruning])
            met = can_meet(recipe, self.geometry, self.low)
            self._floors[pruning] = self.low if met else smallest_average(recipe, self.geometry)
        low = self._floors[pruning]
        if low > self.high:
            raise BudgetError(f"{pruning} cannot meet an average of {self.high:.4g} tokens; it needs at least {low:g}")
        place = trial.suggest_float("budget", 0, 1)
        asked = Budget(tokens=float(f"{low * (self.high / low) ** place:g}"))
        return settled(self.recipe([pruning]), asked, self.geometry)

    def _pick(self, trial: Trial, hook: str, among: Sequence[StrategyChoice] | None = None, name: str = "") -> str:
        """``hook=text`` of a chosen strategy, with a chosen number for each range."""
        choices = self.choices[hook] if among is None else among
        labels = [choice.label for choice in choices]
        label = trial.suggest_categorical(name or hook, labels) if len(labels) > 1 else labels[0]
        choice = choices[labels.index(label)]
        values: dict[str, float] = {}
        for option, found in choice.ranges.items():
            key = f"{hook} {label} {option}"
            if found.whole:
                values[option] = trial.suggest_int(key, int(found.low), int(found.high))
            else:
                values[option] = trial.suggest_float(key, found.low, found.high)
        return f"{hook}={choice.text(values)}"

    def _heads(self, trial: Trial) -> tuple[str, str]:
        """Head scorer and head count. With all heads, only a scorer that leaves out heads itself makes a difference."""
        count = self._count(trial)
        own = [choice for choice in self.choices["head_scoring"] if _counts_itself(choice)]
        others = [choice for choice in self.choices["head_scoring"] if not _counts_itself(choice)]
        if count == f"head_count={ALL_HEADS}" and self.settings.get("aggregate") != "weighted":
            plain = StrategyChoice.parse("head_scoring", PLAIN_SCORER)
            return self._pick(trial, "head_scoring", [plain, *own], "head_scoring of all heads"), count
        return self._pick(trial, "head_scoring", others or own), count

    def _count(self, trial: Trial) -> str:
        """The head count; where its number is known beforehand, it is written as ``all`` or ``fixed:heads=N``."""
        text = self._pick(trial, "head_count")
        heads = _target(text.partition("=")[2], self.geometry.heads)
        if heads is None:
            return text
        return f"head_count={ALL_HEADS}" if heads == self.geometry.heads else f"head_count=fixed:heads={heads}"


def space_of(file: SpaceFile, geometry: Geometry) -> Space:
    """The space of a file for one model."""
    texts: dict[str, tuple[str, ...]] = attrs.asdict(file.choices)
    choices = {hook: tuple(_spread(hook, listed)) for hook, listed in texts.items()}
    low, high = file.budget.span(geometry.visual_tokens)
    settings = {name: value for name, value in attrs.asdict(file.settings).items() if value is not None}
    return Space(choices, low, min(high, geometry.visual_tokens), geometry, settings)


def settled(recipe: Recipe, asked: Budget, geometry: Geometry) -> Budget:
    """The budget as the average that results from it, so that budgets with the same effect are equal."""
    plan = check(attrs.evolve(recipe, budget=asked), geometry)
    rounded = Budget(tokens=round(plan.average, PLACES))
    try:
        again = check(attrs.evolve(recipe, budget=rounded), geometry)
    except BudgetError:
        return asked
    return rounded if again.processed == plan.processed else asked


def _spread(hook: str, listed: Sequence[str]) -> list[StrategyChoice]:
    """The choices in a list; ``*`` is replaced by all installed strategies that need no option."""
    every = [name for name in installed(hook) if EVERY in listed and known_strategy(hook)(name) is None]
    texts = [text for given in listed for text in (every if given == EVERY else [given])]
    return [StrategyChoice.parse(hook, text) for text in dict.fromkeys(text.removeprefix(f"{hook}=") for text in texts)]


def _counts_itself(choice: StrategyChoice) -> bool:
    return StrategyText.parse(choice.name).name in OWN_COUNT


@functools.lru_cache(maxsize=256)
def _target(count: str, heads: int) -> int | None:
    """How many of ``heads`` heads a head count keeps; None where that depends on the scores."""
    target = getattr(Registry.installed("head_count").build(count).plugin, "target", None)
    return None if target is None else int(target(heads))


@functools.lru_cache(maxsize=256)
def _built(texts: tuple[str, ...], settings: tuple[tuple[str, Any], ...]) -> Recipe:
    """A cached recipe: looking up installed strategies takes a while, and ``smallest_average`` tries many budgets."""
    return Recipe.of(*texts, **dict(settings))
