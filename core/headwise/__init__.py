"""Headwise: attention heads decide which visual tokens and KV entries stay.

Importing this package imports neither torch nor transformers; names that need them are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headwise.errors import BudgetError, ContractError, DataError, HeadwiseError, ModelError, StrategyError
from headwise.hookspecs import HOOKS, hookimpl

if TYPE_CHECKING:
    from headwise.attachment import attach
    from headwise.budget import Budget
    from headwise.geometry import Geometry, shape
    from headwise.layout import Layout
    from headwise.pipeline import Pipeline
    from headwise.plan import PruningPlan, Queries, Selection, Stage
    from headwise.recipe import Recipe
    from headwise.registry import Registry, resolve

_LAZY = {
    "attach": "attachment",
    "Budget": "budget",
    "Geometry": "geometry",
    "shape": "geometry",
    "Layout": "layout",
    "Pipeline": "pipeline",
    "PruningPlan": "plan",
    "Queries": "plan",
    "Selection": "plan",
    "Stage": "plan",
    "Recipe": "recipe",
    "Registry": "registry",
    "resolve": "registry",
}

__all__ = [
    "HOOKS",
    "Budget",
    "BudgetError",
    "ContractError",
    "DataError",
    "Geometry",
    "HeadwiseError",
    "Layout",
    "ModelError",
    "Pipeline",
    "PruningPlan",
    "Queries",
    "Recipe",
    "Registry",
    "Selection",
    "Stage",
    "StrategyError",
    "attach",
    "hookimpl",
    "resolve",
    "shape",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    return getattr(importlib.import_module(f"headwise.{_LAZY[name]}"), name)
