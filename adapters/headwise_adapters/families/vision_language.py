"""Vision-language models: visual tokens are pruned and KV entries evicted, where the model's family finds them.

Visual tokens are dropped on the way through the layers, KV entries are evicted from what each layer holds: the two
compose, and a token that was dropped is nothing the cache could keep.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING

import attrs

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan, ScorePlan, WindowPlan
from headwise.pipeline import Pipeline
from headwise.plan import PruningPlan
from headwise_adapters import patching
from headwise_adapters.cache.ragged_cache import EvictingCache, Layers
from headwise_adapters.eviction.evicting import attached, evicting_cache, layers_of
from headwise_adapters.eviction.trace import Trace
from headwise_adapters.families.family import VisionFamily
from headwise_adapters.families.finding import checked, found
from headwise_adapters.families.unmoved import unmoved
from headwise_adapters.parts import VisionParts
from headwise_adapters.pruning.dropping import Dropper, dropping

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class VisionLanguageAdapter:
    """Prunes visual tokens of a model and evicts its KV entries; raises ModelError for one not of the ``family``."""

    def __init__(self, model: PreTrainedModel, family: VisionFamily) -> None:
        self._model, self._family = model, family
        text, *_ = (found(model, path, family.stock) for path in (family.text, *family.eyes))
        self.decoder = VisionParts(
            head=model,
            outer=model.model,
            text=text,
            layers=text.layers,
            attention=family.attention,
            cache=family.cache,
            tower=family.tower(model),
            image_token=model.config.image_token_id,
            pictures=partial(family.pictures, model),
        )
        self.geometry = checked(model, self.decoder, family)
        self.decoder = attrs.evolve(self.decoder, sliding=self.geometry.sliding)

    def attached(self, pipeline: Pipeline, plan: PruningPlan, eviction: EvictionPlan) -> AbstractContextManager[Trace]:
        """Prune and evict inside the context; the model is as it was afterwards. Gives what forwards leave to be read.

        Raises ModelError for what would count positions along one axis where they have several.
        """
        if plan.stages and pipeline.recipe.positions == "compact" and self._family.axes:
            raise ModelError(f"positions=compact counts tokens along one axis, and {self._axes}; use positions=keep")
        layers = None if eviction.keeps_everything else self._layers(pipeline, eviction)
        prune = partial(self._dropper, pipeline, plan) if plan.stages else None
        return attached(self._model, self.decoder, layers, prune)

    def _dropper(self, pipeline: Pipeline, plan: PruningPlan, patches: ExitStack, trace: Trace) -> Dropper:
        """What drops visual tokens by a plan until ``patches`` are closed."""
        modules = [self.decoder.outer, *self.decoder.modules()]
        patches.enter_context(patching.eagerly(self._model, modules))
        return dropping(self.decoder, pipeline, plan, patches, trace)

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> EvictingCache:
        """An empty cache that evicts; raises ModelError as :meth:`attached` does."""
        return evicting_cache(self._model, self.decoder, self._layers(pipeline, plan))

    def _layers(self, pipeline: Pipeline, plan: EvictionPlan) -> Layers:
        """What makes the cache layers of a plan; ModelError for one that moves keys where positions have axes."""
        if self._family.axes and isinstance(plan, WindowPlan) and plan.positions == "relative":
            raise ModelError(f"positions=relative moves sinks along the text, and {self._axes}; use positions=original")
        if self._family.axes and isinstance(plan, ScorePlan):
            if plan.rerotate:
                raise ModelError(f"rerotate moves keys along the text, and {self._axes}; use rerotate=false")
            plan = attrs.evolve(plan, score=unmoved(plan.score, self._axes))
        return layers_of(self.decoder, pipeline, plan, contiguous=False)

    @property
    def _axes(self) -> str:
        axes = self._family.axes
        number = {2: "two", 3: "three"}.get(len(axes), str(len(axes)))
        return f"positions of {self._family.name} have {number} axes ({', '.join(axes)})"
