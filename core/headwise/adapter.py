"""What the core asks of a model: the adapter that a family makes of it, and where its decoder's modules are."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn
    from transformers import Cache

    from headwise.eviction import EvictionPlan
    from headwise.geometry import Geometry
    from headwise.pipeline import Pipeline
    from headwise.plan import PruningPlan


class Decoder(Protocol):
    """Where a language model keeps the modules that pruning, eviction and measurements touch."""

    @property
    def text(self) -> nn.Module:
        """The module that runs all decoder layers: from token ids or embeddings to the last hidden states."""
        ...

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, in the order in which they run."""
        ...

    @property
    def cache(self) -> str:
        """The keyword under which a decoder layer gets the KV cache."""
        ...

    def layer(self, layer: int) -> nn.Module:
        """One decoder layer, without the wrapper of ``torch.compile``."""
        ...

    def attention_of(self, layer: int) -> nn.Module:
        """The attention module of one decoder layer."""
        ...


class Adapter(Protocol):
    """One model with what headwise does to it; made by the model's family (``headwise.adapter``)."""

    @property
    def geometry(self) -> Geometry:
        """Counts of the model."""
        ...

    @property
    def decoder(self) -> Decoder:
        """Where the model's layers are."""
        ...

    def attached(self, pipeline: Pipeline, plan: PruningPlan, eviction: EvictionPlan) -> AbstractContextManager[None]:
        """Prune, and evict KV entries, inside the context, whatever cache `generate` or the caller brings.

        Leave the model exactly as it was on the way out, also after an exception.
        """
        ...

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> Cache:
        """An empty transformers ``Cache`` that evicts, to be passed as ``past_key_values``."""
        ...
