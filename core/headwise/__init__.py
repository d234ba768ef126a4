"""Headwise: attention heads decide which visual tokens and KV entries stay.

Importing this package imports neither torch nor transformers; names that need them are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from headwise.errors import BudgetError, ContractError, DataError, HeadwiseError, ModelError, StrategyError
from headwise.hookspecs import HOOKS, hookimpl

if TYPE_CHECKING:
    from headwise.attachment import attach, cache
    from headwise.budget import Budget
    from headwise.eviction import CacheEvidence, ScorePlan, WindowPlan
    from headwise.families import shape
    from headwise.geometry import Geometry
    from headwise.heads import HeadLabels, HeadProfile, HeadStatistics
    from headwise.layout import Layout
    from headwise.pipeline import Pipeline
    from headwise.plan import Merged, PruningPlan, Queries, Selection, Stage
    from headwise.recipe import Preset, Recipe
    from headwise.registry import Registry, resolve

_LAZY = {
    "attach": "attachment",
    "cache": "attachment",
    "Budget": "budget",
    "Geometry": "geometry",
    "shape": "families",
    "CacheEvidence": "eviction",
    "ScorePlan": "eviction",
    "WindowPlan": "eviction",
    "HeadLabels": "heads",
    "HeadProfile": "heads",
    "HeadStatistics": "heads",
    "Layout": "layout",
    "Pipeline": "pipeline",
    "Merged": "plan",
    "PruningPlan": "plan",
    "Queries": "plan",
    "Selection": "plan",
    "Stage": "plan",
    "Preset": "recipe",
    "Recipe": "recipe",
    "Registry": "registry",
    "resolve": "registry",
}

__all__ = [
    "HOOKS",
    "Budget",
    "BudgetError",
    "CacheEvidence",
    "ContractError",
    "DataError",
    "Geometry",
    "HeadLabels",
    "HeadProfile",
    "HeadStatistics",
    "HeadwiseError",
    "Layout",
    "Merged",
    "ModelError",
    "Pipeline",
    "Preset",
    "PruningPlan",
    "Queries",
    "Recipe",
    "Registry",
    "ScorePlan",
    "Selection",
    "Stage",
    "StrategyError",
    "WindowPlan",
    "attach",
    "cache",
    "hookimpl",
    "resolve",
    "shape",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    return getattr(importlib.import_module(f"headwise.{_LAZY[name]}"), name)
