"""What all vision-language adapters share; a family adds where its parts are and which tokens its images become.

Visual tokens are dropped on the way through the layers, KV entries are evicted from what each layer holds: the two
compose, and a token that was dropped is nothing the cache could keep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise_adapters import patching
from headwise_adapters.cache.ragged_cache import EvictingCache, Layers
from headwise_adapters.eviction.evicting import evicting, evicting_cache, layers_of
from headwise_adapters.eviction.ruling import Block, attached
from headwise_adapters.parts import VisionParts, text_geometry
from headwise_adapters.pruning.dropping import dropping
from headwise_adapters.vision.images import Picture, Tower


class VisionLanguageAdapter(ABC):
    """Prunes a model whose ``model`` has a Llama-like ``language_model``, and evicts its KV entries.

    ``stock`` names the class to attach to, ``parts`` what its ``model`` (``self.inner``) must have. ``renumbers``:
    whether positions have one axis, so that surviving tokens can be given positions 0, 1, 2, ...
    """

    stock: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    renumbers: ClassVar[bool] = True

    def __init__(self, model: Any) -> None:
        inner: Any = getattr(model, "model", None)
        missing = [part for part in ("language_model", *self.parts) if not hasattr(inner, part)]
        if missing:
            raise ModelError(f"{type(model).__name__} has no model.{missing[0]}; attach to a {self.stock}")
        self.inner, self.config = inner, model.config
        self._model = model
        name = self.config.name_or_path or "this model"
        there = len(inner.language_model.layers)
        self.geometry = text_geometry(self.config.text_config, name, there, self.visual_tokens())
        self.decoder = VisionParts(
            head=model,
            outer=inner,
            text=inner.language_model,
            layers=inner.language_model.layers,
            tower=self.tower(),
            image_token=self.config.image_token_id,
            pictures=self.pictures,
            sliding=self.geometry.sliding,
        )

    @abstractmethod
    def visual_tokens(self) -> int:
        """Visual tokens of one picture, which budgets are given for; other images get their share of it."""

    @abstractmethod
    def tower(self) -> Tower:
        """The vision tower, to be looked at."""

    @abstractmethod
    def pictures(self, call: Mapping[str, Any]) -> list[Picture]:
        """The images of a call of ``get_image_features``, from its bound arguments, in the order of the prompts."""

    @contextmanager
    def attached(self, pipeline: Pipeline, plan: PruningPlan, eviction: EvictionPlan) -> Iterator[None]:
        """Prune and evict inside the context; the model is as it was afterwards."""
        if plan.stages and pipeline.recipe.positions == "compact" and not self.renumbers:
            raise ModelError(
                f"positions=compact counts tokens along one axis, and positions of {type(self._model).__name__} have"
                " three (time, height, width); use positions=keep"
            )
        block = Block(text=self.decoder.text)
        with ExitStack() as patches:
            if not eviction.keeps_everything:
                block.layers = self.layers(pipeline, eviction)
                evicting(self._model, self.decoder, patches)
            if plan.stages:
                patches.enter_context(patching.eagerly(self._model, [self.inner, *self.decoder.modules()]))
                block.dropper = dropping(self.decoder, pipeline, plan, patches)
            stack = patches.pop_all()
        with attached(block, stack):
            yield

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> EvictingCache:
        """An empty cache that evicts."""
        return evicting_cache(self._model, self.decoder, self.layers(pipeline, plan))

    def layers(self, pipeline: Pipeline, plan: EvictionPlan) -> Layers:
        """What makes the cache layers of a plan."""
        return layers_of(self.decoder, pipeline, plan, contiguous=False)
