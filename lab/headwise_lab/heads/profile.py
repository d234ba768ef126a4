"""Making a head profile: a strategy classifies the heads of a model on a text."""

from __future__ import annotations

import attrs
from torch import Tensor

from headwise.heads import WINDOWS, HeadProfile
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.registry import Strategy
from headwise_adapters.heads.statistics import ModelStatistics, Progress, measure
from headwise_lab.models.load import LoadedLm
from headwise_lab.texts.tokens import Text

SINKS = 4
"""A profile's attention mass leaves out so many first tokens."""


@attrs.frozen(eq=False)
class Classified:
    """A profile, and the measurements that it was made from."""

    profile: HeadProfile
    statistics: ModelStatistics


def classify(
    loaded: LoadedLm, text: Text, strategy: Strategy, *, seed: int = 0, progress: Progress | None = None
) -> Classified:
    """Classify the heads of a model on a text, and measure how much attention each window holds.

    ``seed``: for the random tokens of strategies that read how heads copy. Raises DataError for too short a text.
    """
    statistics = measure(loaded.model, text.ids, seed=seed, special=loaded.tokenizer.all_special_ids, progress=progress)
    labels = Pipeline(Recipe(strategies={strategy.hook: strategy})).classify(statistics)
    windows = tuple(window for window in WINDOWS if window <= text.ids.numel())
    shares = statistics.attention(SINKS).distance.mean(axis=0).cumsum(axis=-1)
    profile = HeadProfile(
        model=loaded.name,
        labels=labels,
        windows=windows,
        mass=shares[..., [window - 1 for window in windows]],
        strategy=strategy.text,
        text=f"{text.name} ({text.digest}), {text.ids.numel()} tokens",
    )
    return Classified(profile, statistics)


def of_ids(text: Text, ids: Tensor) -> Text:
    """A part of a text, under the same name."""
    return attrs.evolve(text, ids=ids)
