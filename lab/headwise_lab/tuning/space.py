"""A search space for one model: what may be chosen for every hook, and the budgets that each pruning can meet.

A point is made by optuna asking for one parameter after the other, so that an option is only asked for where its
strategy was chosen, and a hook only where the pruning reads attention. Two ways to write one point are written alike.
"""

from __future__ import annotations

import bisect
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
from headwise_lab.sweeps.studies import OWN_COUNT
from headwise_lab.sweeps.values import EVERY, known_strategy
from headwise_lab.trial.run import check
from headwise_lab.tuning.ranges import Choice
from headwise_lab.tuning.schema import SpaceFile

if TYPE_CHECKING:
    from optuna import Trial

ALL_HEADS, PLAIN_SCORER, UNPRUNED = "all", "sum", "none"
PLACES = 4  # of a budget, as in records


@attrs.frozen(eq=False)
class Point:
    """One point of a space: a recipe, and what it makes the model's layers process."""

    texts: tuple[str, ...]
    recipe: Recipe
    plan: PruningPlan

    @property
    def told(self) -> dict[str, object]:
        """What makes the point again: its texts and its budget."""
        return {"strategies": list(self.texts), "tokens": self.recipe.budget.tokens}

    @property
    def label(self) -> str:
        """The point in a few words."""
        told = ", ".join(text.partition("=")[2] for text in self.texts)
        return f"{told} at {self.plan.average:.4g} tokens"


@attrs.frozen(eq=False)
class Space:
    """What may be chosen: strategies by hook, processed averages from ``low`` to ``high``, settings of all recipes."""

    choices: Mapping[str, tuple[Choice, ...]]
    low: float
    high: float
    geometry: Geometry
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    _floors: dict[str, float] = attrs.field(factory=dict, init=False)

    def propose(self, trial: Trial) -> Point:
        """The next point; raises BudgetError or StrategyError, without model time, for one that cannot be run."""
        pruning = self._pick(trial, "token_pruning")
        recipe = self.recipe([pruning], self._budget(trial, pruning))
        plan = check(recipe, self.geometry)
        if not any(stage.reads_attention for stage in plan.stages):
            return Point((pruning,), recipe, plan)
        texts = (pruning, self._pick(trial, "query_selection"), *self._heads(trial))
        chosen = attrs.evolve(self.recipe(texts), budget=recipe.budget)
        return Point(texts, chosen, check(chosen, self.geometry))

    def recipe(self, texts: Sequence[str], budget: Budget | None = None) -> Recipe:
        """The recipe of some strategy texts with the settings of the space."""
        return attrs.evolve(_built(tuple(texts), tuple(self.settings.items())), budget=budget or Budget())

    def point(self, texts: Sequence[str], tokens: float | None) -> Point:
        """A point by its texts and budget, such as one that was proposed before."""
        recipe = self.recipe(texts, Budget(tokens=tokens))
        return Point(tuple(texts), recipe, check(recipe, self.geometry))

    def _budget(self, trial: Trial, pruning: str) -> Budget:
        """A processed average that the pruning can meet, written as the average that it then has."""
        if StrategyText.parse(pruning.partition("=")[2]).name == UNPRUNED:
            return Budget()
        if pruning not in self._floors:
            self._floors[pruning] = least(self.recipe([pruning]), self.geometry, self.low)
        low = self._floors[pruning]
        if low > self.high:
            raise BudgetError(f"{pruning} cannot meet an average of {self.high:.4g} tokens; it needs at least {low:g}")
        place = trial.suggest_float("budget", 0, 1)
        asked = Budget(tokens=float(f"{low * (self.high / low) ** place:g}"))
        return settled(self.recipe([pruning]), asked, self.geometry)

    def _pick(self, trial: Trial, hook: str, among: Sequence[Choice] | None = None, name: str = "") -> str:
        """``hook=text`` of a strategy, its ranges decided."""
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
        """Scorer and count. With all heads, no scorer has a say but those that leave heads out themselves."""
        count = self._count(trial)
        own = [choice for choice in self.choices["head_scoring"] if _counts_itself(choice)]
        others = [choice for choice in self.choices["head_scoring"] if not _counts_itself(choice)]
        if count == f"head_count={ALL_HEADS}" and self.settings.get("aggregate") != "weighted":
            plain = Choice.parse("head_scoring", PLAIN_SCORER)
            return self._pick(trial, "head_scoring", [plain, *own], "head_scoring of all heads"), count
        return self._pick(trial, "head_scoring", others or own), count

    def _count(self, trial: Trial) -> str:
        """The head count; one that is known beforehand is written as ``all`` or ``fixed:heads=N``."""
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


def least(recipe: Recipe, geometry: Geometry, enough: float) -> float:
    """``enough``, where the recipe can meet that average, else the smallest whole average that it can meet."""

    def met(average: float) -> bool:
        try:
            check(attrs.evolve(recipe, budget=Budget(tokens=average)), geometry)
        except BudgetError:
            return False
        return True

    if met(enough):
        return enough
    return bisect.bisect_left(range(1, geometry.visual_tokens), True, key=met) + 1


def settled(recipe: Recipe, asked: Budget, geometry: Geometry) -> Budget:
    """The budget written as the average it leads to, so that budgets with the same effect are the same."""
    plan = check(attrs.evolve(recipe, budget=asked), geometry)
    told = Budget(tokens=round(plan.average, PLACES))
    try:
        again = check(attrs.evolve(recipe, budget=told), geometry)
    except BudgetError:
        return asked
    return told if again.processed == plan.processed else asked


def _spread(hook: str, listed: Sequence[str]) -> list[Choice]:
    """The choices of a list, and in place of ``*`` all that are installed and need no option."""
    every = [name for name in installed(hook) if EVERY in listed and known_strategy(hook)(name) is None]
    texts = [text for given in listed for text in (every if given == EVERY else [given])]
    return [Choice.parse(hook, text) for text in dict.fromkeys(text.removeprefix(f"{hook}=") for text in texts)]


def _counts_itself(choice: Choice) -> bool:
    return StrategyText.parse(choice.name).name in OWN_COUNT


@functools.lru_cache(maxsize=256)
def _target(count: str, heads: int) -> int | None:
    """How many of ``heads`` a head count keeps, where it is known without looking."""
    target = getattr(Registry.installed("head_count").build(count).plugin, "target", None)
    return None if target is None else int(target(heads))


@functools.lru_cache(maxsize=256)
def _built(texts: tuple[str, ...], settings: tuple[tuple[str, Any], ...]) -> Recipe:
    """Remembered, because finding what is installed takes a while, and a floor is looked for with many budgets."""
    return Recipe.of(*texts, **dict(settings))
