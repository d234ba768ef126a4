"""Language models: eviction of KV entries, from a decoder that the model's family finds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise_adapters.cache.ragged_cache import EvictingCache
from headwise_adapters.eviction.evicting import attached, evicting_cache, layers_of
from headwise_adapters.eviction.trace import Trace
from headwise_adapters.families.family import Family
from headwise_adapters.families.finding import checked, found
from headwise_adapters.parts import TextParts

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CausalLmAdapter:
    """Evicts KV entries of a language model; raises ModelError for one that is not of the ``family``."""

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        self._model = model
        layers = found(model, f"{family.text}.layers", family.stock)
        text = found(model, family.text, family.stock)
        self.decoder = TextParts(text=text, layers=layers, attention=family.attention, cache=family.cache)
        self.geometry = checked(model, self.decoder, family)

    def attached(self, pipeline: Pipeline, plan: PruningPlan, eviction: EvictionPlan) -> AbstractContextManager[Trace]:
        """Evict inside the context; the model is as it was afterwards. Gives what forwards leave to be read.

        Raises ModelError for a plan that prunes, because there are no visual tokens.
        """
        if plan.stages:
            raise ModelError(f"{type(self._model).__name__} has no visual tokens to prune; leave token_pruning out")
        layers = None if eviction.keeps_everything else layers_of(self.decoder, pipeline, eviction)
        return attached(self._model, self.decoder, layers)

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> EvictingCache:
        """An empty cache that evicts."""
        return evicting_cache(self._model, self.decoder, layers_of(self.decoder, pipeline, plan))
