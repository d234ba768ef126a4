"""Recipes that only evict KV entries, made from the text of one strategy."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from headwise.geometry import Geometry
from headwise.heads import HeadProfile
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.registry import resolve


def eviction_recipe(text: str, profile: HeadProfile | None = None) -> Recipe:
    """The recipe of one ``kv_eviction`` strategy. Other hooks may have its name too, such as ``none``."""
    strategy = resolve(text, ("kv_eviction",))
    nothing = Recipe.of(profile=profile)
    return attrs.evolve(nothing, strategies={**nothing.strategies, "kv_eviction": strategy})


def planned(texts: Sequence[str], profile: HeadProfile | None, geometry: Geometry) -> list[Recipe]:
    """Recipes of several strategies. Each is planned for this model, which raises the error of one that cannot run."""
    recipes = [eviction_recipe(text, profile) for text in texts]
    for recipe in recipes:
        Pipeline(recipe).eviction(geometry)
    return recipes
