"""Attaching a recipe to a model: find the adapter of its family by entry point, plan, and run inside a ``with``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from headwise.blame import blamed
from headwise.errors import ModelError
from headwise.eviction import EvictionPlan
from headwise.families import family
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise.recipe import Recipe
from headwise.registry import installed

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

    from headwise.adapter import Adapter


@attrs.frozen(eq=False)
class Attachment:
    """What is attached: the recipe's pipeline and its plans for this model."""

    pipeline: Pipeline
    plan: PruningPlan
    eviction: EvictionPlan


_WRAPPED = {"get_base_model": "get_base_model()", "module": "module"}
"""How PEFT, and the wrappers of data parallel training, tell what they wrap."""


def adapter_for(model: PreTrainedModel) -> Adapter:
    """The adapter of a transformers model's family; raises ModelError naming the families there are."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    inside = next((way for way in _WRAPPED if hasattr(model, way)), None)
    if inside is not None:
        raise ModelError(
            f"a {type(model).__name__} wraps the model; attach to what is inside (model.{_WRAPPED[inside]}), and go on"
            " calling the wrapper"
        )
    found = installed("adapter")
    if model_type not in found:
        raise ModelError(
            f"no adapter for {type(model).__name__} (model_type {model_type!r}); supported:"
            f" {', '.join(found) or 'none'}"
        )
    return family(model_type).adapter(model)


@contextmanager
def attach(model: PreTrainedModel, recipe: Recipe, *, observers: Sequence[object] = ()) -> Iterator[Attachment]:
    """Run a stock transformers model with tokens pruned and KV entries evicted as the recipe says.

    >>> with headwise.attach(model, recipe):  # doctest: +SKIP
    ...     model.generate(**inputs)

    ``observers`` are pluggy plugins that see every decision. Raises ModelError for a model no adapter knows,
    BudgetError for a budget the plan cannot meet, StrategyError for everything a strategy does wrong.
    """
    adapter = adapter_for(model)
    pipeline = Pipeline(recipe, observers)
    plan = pipeline.plan(adapter.geometry)
    eviction = pipeline.eviction(adapter.geometry)
    with ExitStack() as entered:
        with blamed(f"the adapter {type(adapter).__name__}"):
            entered.enter_context(adapter.attached(pipeline, plan, eviction))
        yield Attachment(pipeline, plan, eviction)


def cache(model: PreTrainedModel, recipe: Recipe) -> Cache:
    """An empty KV cache that evicts as the recipe says; pass it as ``past_key_values``, turn after turn.

    >>> model.generate(**inputs, past_key_values=headwise.cache(model, recipe))  # doctest: +SKIP

    Needs no ``with``: while the cache lives, the model's attention asks it what is there; other caches are served as
    before. Raises what :func:`attach` raises, and ModelError for a recipe that prunes visual tokens, which needs
    :func:`attach`.
    """
    adapter = adapter_for(model)
    pipeline = Pipeline(recipe)
    if pipeline.plan(adapter.geometry).stages:
        raise ModelError("a cache evicts KV entries and prunes no visual token; use headwise.attach for this recipe")
    with blamed(f"the adapter {type(adapter).__name__}"):
        return adapter.cache(pipeline, pipeline.eviction(adapter.geometry))
