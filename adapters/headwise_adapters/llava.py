"""LLaVA in its Hugging Face form: a CLIP-like tower, a projector, and any Llama-like language model.

Visual tokens are dropped on the way through the layers, KV entries are evicted from what each layer holds: the two
compose, and a token that was dropped is nothing the cache could keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise_adapters.anatomy import Anatomy, patches, text_geometry
from headwise_adapters.dropping import dropping
from headwise_adapters.evicting import Layers, evicting, evicting_cache, layers_of
from headwise_adapters.ragged_cache import EvictingCache

_ATTACHED = "_headwise_attached"


class LlavaAdapter:
    """Prunes a ``LlavaForConditionalGeneration`` and evicts its KV entries."""

    def __init__(self, model: Any) -> None:
        inner: Any = getattr(model, "model", None)
        if not hasattr(inner, "language_model") or not hasattr(inner, "multi_modal_projector"):
            raise ModelError(
                f"{type(model).__name__} has no language_model beside a multi_modal_projector;"
                " attach to a LlavaForConditionalGeneration"
            )
        self._model = model
        config = model.config
        extra = 0 if config.vision_feature_select_strategy == "default" else 1  # "full" keeps the CLS token
        tokens = patches(config.vision_config) + extra
        self.geometry = text_geometry(config.text_config, config.name_or_path or "this model", tokens)
        self.anatomy = Anatomy(
            outer=inner,
            tower=inner.vision_tower,
            text=inner.language_model,
            layers=inner.language_model.layers,
            image_token=config.image_token_id,
        )
        self.decoder = self.anatomy

    @contextmanager
    def pruning(self, pipeline: Pipeline, plan: PruningPlan) -> Iterator[None]:
        """Prune inside the context; the model is as it was afterwards."""
        if getattr(self._model, _ATTACHED, False):
            raise ModelError("this model is already attached to a recipe; leave that `with` block first")
        if not plan.stages:
            yield
            return
        setattr(self._model, _ATTACHED, True)
        try:
            with dropping(self.anatomy, pipeline, plan):
                yield
        finally:
            delattr(self._model, _ATTACHED)

    def evicting(self, pipeline: Pipeline, plan: EvictionPlan) -> AbstractContextManager[None]:
        """Evict inside the context, beside pruning or alone; the model is as it was afterwards."""
        return evicting(self.anatomy, self._layers(pipeline, plan), drops_tokens=True)

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> EvictingCache:
        """An empty cache that evicts."""
        return evicting_cache(self.anatomy, self._layers(pipeline, plan))

    def _layers(self, pipeline: Pipeline, plan: EvictionPlan) -> Layers:
        return layers_of(self.anatomy, pipeline, plan, contiguous=False)
