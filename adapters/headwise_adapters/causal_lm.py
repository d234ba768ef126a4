"""Llama and its relatives: Mistral, Qwen2, Qwen3, SmolLM2. Rotary embeddings, grouped queries, no image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise_adapters.anatomy import Decoder, text_geometry
from headwise_adapters.evicting import evicting, evicting_cache, layers_of
from headwise_adapters.ragged_cache import EvictingCache


class CausalLmAdapter:
    """Evicts KV entries of a decoder whose layers are ``model.model.layers[i].self_attn``."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.decoder = self._find(model)
        config = model.config
        self.geometry = text_geometry(config, config.name_or_path or "this model", gated=self._gated)

    _gated = True

    def _find(self, model: Any) -> Decoder:
        inner: Any = getattr(model, "model", None)
        if not hasattr(inner, "layers"):
            raise ModelError(f"{type(model).__name__} has no model.layers; attach to a causal language model")
        return Decoder(text=inner, layers=inner.layers)

    @contextmanager
    def pruning(self, pipeline: Pipeline, plan: PruningPlan) -> Iterator[None]:
        """Nothing to prune: there are no visual tokens."""
        if plan.stages:
            raise ModelError(f"{type(self._model).__name__} has no visual tokens to prune; leave token_pruning out")
        yield

    def evicting(self, pipeline: Pipeline, plan: EvictionPlan) -> AbstractContextManager[None]:
        """Evict inside the context; the model is as it was afterwards."""
        return evicting(self.decoder, layers_of(self.decoder, pipeline, plan))

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> EvictingCache:
        """An empty cache that evicts."""
        return evicting_cache(self.decoder, layers_of(self.decoder, pipeline, plan))
