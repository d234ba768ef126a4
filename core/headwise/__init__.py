"""Headwise: attention heads decide which visual tokens and KV entries stay.

Importing this package imports neither torch nor transformers; names that need them are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from headwise.errors import BudgetError, ContractError, DataError, HeadwiseError, ModelError, StrategyError
from headwise.hookspecs import HOOKS, hookimpl

if TYPE_CHECKING:
    from headwise.adapter import CacheReading, EvictingCache
    from headwise.attachment import Attachment, attach, cache
    from headwise.budget import Budget
    from headwise.eviction import CacheEvidence, ScorePlan, WindowPlan
    from headwise.families import shape
    from headwise.geometry import Geometry
    from headwise.heads import HeadLabels, HeadProfile, HeadStatistics
    from headwise.kept import KeptRow, KeptToken
    from headwise.layout import Layout
    from headwise.pipeline import Pipeline
    from headwise.plan import Merged, PruningPlan, Queries, Selection, Stage
    from headwise.recipe import Preset, Recipe
    from headwise.registry import Registry, resolve

_LAZY = {
    "Attachment": "attachment",
    "CacheReading": "adapter",
    "EvictingCache": "adapter",
    "KeptRow": "kept",
    "KeptToken": "kept",
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
    "Attachment",
    "Budget",
    "BudgetError",
    "CacheEvidence",
    "CacheReading",
    "ContractError",
    "DataError",
    "EvictingCache",
    "Geometry",
    "HeadLabels",
    "HeadProfile",
    "HeadStatistics",
    "HeadwiseError",
    "KeptRow",
    "KeptToken",
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


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY} - {"_LAZY", "importlib", "annotations", "TYPE_CHECKING"})
