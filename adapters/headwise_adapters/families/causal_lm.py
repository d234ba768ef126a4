"""Language models: eviction of KV entries, from a decoder that the model's family finds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise_adapters.cache.ragged_cache import EvictingCache
from headwise_adapters.eviction.evicting import evicting, evicting_cache, layers_of
from headwise_adapters.eviction.ruling import Block, attached
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

    @contextmanager
    def attached(self, pipeline: Pipeline, plan: PruningPlan, eviction: EvictionPlan) -> Iterator[None]:
        """Evict inside the context; the model is as it was afterwards.

        Raises ModelError for a plan that prunes, because there are no visual tokens.
        """
        if plan.stages:
            raise ModelError(f"{type(self._model).__name__} has no visual tokens to prune; leave token_pruning out")
        block = Block(text=self.decoder.text)
        with ExitStack() as patches:
            if not eviction.keeps_everything:
                block.layers = layers_of(self.decoder, pipeline, eviction)
                evicting(self._model, self.decoder, patches)
            stack = patches.pop_all()
        with attached(block, stack):
            yield

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> EvictingCache:
        """An empty cache that evicts."""
        return evicting_cache(self._model, self.decoder, layers_of(self.decoder, pipeline, plan))
