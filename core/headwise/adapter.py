"""What the core asks of a model: the adapter that a family makes of it, and where its decoder's modules are."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    import numpy as np
    import numpy.typing as npt
    from PIL import Image
    from torch import nn

    from headwise.eviction import EvictionPlan
    from headwise.geometry import Geometry
    from headwise.kept import KeptRow
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


class CacheReading(Protocol):
    """What a cache holds of what was read."""

    def kv_bytes(self) -> int:
        """Bytes of all keys and values held, measured on their storages."""
        ...

    def bookkeeping_bytes(self) -> int:
        """Bytes of everything else that the cache holds: positions, remembered queries, attention received."""
        ...

    def entries(self) -> npt.NDArray[np.int64]:
        """Entries held per layer and KV head, of the first row: (layers, kv_heads)."""
        ...

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that were read, padding included; most of them may be evicted."""
        ...


@runtime_checkable
class EvictingCache(CacheReading, Protocol):
    """A transformers ``Cache`` that evicts, to be given as ``past_key_values``; it serves the model it was made for."""

    def reset(self) -> None:
        """Forget everything that was read."""
        ...


class Trace(Protocol):
    """What the forwards under an attached recipe leave to be read."""

    @property
    def kept(self) -> tuple[KeptRow, ...]:
        """What each row of the last forward with pictures kept; raises ModelError where nothing was kept or pruned."""
        ...

    def show(self, given: Sequence[Image.Image | str | PathLike[str]], row: int | None) -> Image.Image:
        """The images of all rows of that forward, or of one row, and what was kept of each, in one picture."""
        ...

    @property
    def cache(self) -> CacheReading:
        """The cache that the last forward filled; raises ModelError where there is none that evicts."""
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

    def attached(self, pipeline: Pipeline, plan: PruningPlan, eviction: EvictionPlan) -> AbstractContextManager[Trace]:
        """Prune, and evict KV entries, inside the context, whatever cache `generate` or the caller brings.

        Leave the model exactly as it was on the way out, also after an exception. Give what forwards leave to be read.
        """
        ...

    def cache(self, pipeline: Pipeline, plan: EvictionPlan) -> EvictingCache:
        """An empty cache that evicts."""
        ...
