"""Llama and its relatives, whose layers are ``model.model.layers[i].self_attn``: rotary embeddings, no image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise_adapters.cache.ragged_cache import EvictingCache
from headwise_adapters.eviction.evicting import evicting, evicting_cache, layers_of
from headwise_adapters.eviction.ruling import Block, attached
from headwise_adapters.parts import TextParts, text_geometry


class CausalLmAdapter:
    """Evicts KV entries of a decoder whose layers are ``model.model.layers[i].self_attn``."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.decoder = self._find(model)
        config, there = model.config, len(self.decoder.layers)
        self.geometry = text_geometry(config, config.name_or_path or "this model", there, gated=_gated(self.decoder))

    def _find(self, model: Any) -> TextParts:
        inner: Any = getattr(model, "model", None)
        if not hasattr(inner, "layers"):
            raise ModelError(f"{type(model).__name__} has no model.layers; attach to a causal language model")
        return TextParts(text=inner, layers=inner.layers)

    @contextmanager
    def attached(self, pipeline: Pipeline, plan: PruningPlan, eviction: EvictionPlan) -> Iterator[None]:
        """Evict inside the context; the model is as it was afterwards. There are no visual tokens to prune."""
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


def _gated(decoder: TextParts) -> bool:
    """Whether the first layer's feed-forward block has three matrices, of which one is a gate."""
    names = {name.rpartition(".")[2] for name, _ in decoder.layer(0).named_modules()}
    ungated = names & {"fc1", "c_fc", "up_proj", "dense_h_to_4h"}
    return not ungated or bool(names & {"gate_proj", "gate_up_proj"})
