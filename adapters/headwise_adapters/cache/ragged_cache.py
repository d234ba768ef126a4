"""A transformers cache whose layers hold what an eviction plan leaves, each KV head its own number of entries.

A layer's ``update`` stores nothing: it returns the new keys with a tag. The attention function finds the tag and lets
the layer compute attention over its entries; the layer, which has queries and keys then, stores the new entries and
evicts others. This works only in a model whose attention headwise has patched, so the patched decoder announces every
forward (``expect``), and a layer refuses keys without an announcement: those of a model that is not patched, of another
model, or of a forward that was broken off.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NoReturn

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin

from headwise.errors import ModelError

NO_MASK = (1, 1, 1, 1)
"""Shape of a mask that hides nothing. transformers hands on masks with four axes and makes no others."""

FACTOR = 0x5851F42D4C957F2D  # of a hash of token ids; odd, from Knuth's generator of random numbers

TAG = "_headwise_layer"  # attribute of new keys on their way from a cache layer to the attention function


@attrs.frozen(eq=False, kw_only=True)
class New:
    """New tokens of one forward, on their way through one attention module.

    ``query`` (b, heads, q, d), ``key`` and ``value`` (b, kv_heads, q, d), rotary embeddings applied. ``real`` bool
    (b, q), or None where none of them is padding. ``positions`` int64 (b|1, q): their position ids, where known.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    real: Tensor | None = None
    positions: Tensor | None = None

    @property
    def batch(self) -> int:
        """b, the rows."""
        return self.query.shape[0]

    @property
    def length(self) -> int:
        """q, the new tokens of a row."""
        return self.query.shape[2]


class EvictingLayer(CacheLayerMixin):  # type: ignore[misc]
    """What all layers that evict share: they count tokens, tag keys, and follow changes of the batch.

    ``columns``: tokens the layer was given, padding included; transformers takes them for the layer's length.
    ``counts``: tokens of each row that are no padding, empty before the first forward. ``forwards``: how many forwards
    the layer took part in. ``real`` bool (b, q): which tokens of the present forward are no padding, None where all
    are. ``dropped`` int64 (b, q): how many visual tokens were dropped in front of each of them in this forward, None
    where that changes no distance. ``digest`` int64 (b,): a hash of the token ids read, None where embeddings were, and
    in all layers but the first. ``text``: the language model it was made for. ``rule``: the strategy it evicts by.
    """

    text: Callable[[], nn.Module | None]
    rule: str

    moves = False
    """Whether keys are turned by numbers of tokens, so that position ids have to count the tokens."""
    is_sliding = False
    is_croppable = False
    shows_at_once = True
    """Whether a forward sees no more than what is left after it, so that it can also be computed without a cache."""

    def __init__(self) -> None:
        self.is_initialized = False
        self._begin()

    def __deepcopy__(self, memo: dict[int, object]) -> EvictingLayer:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy.deepcopy(state, memo) for name, state in self.__dict__.items()})
        return twin

    def __reduce_ex__(self, _: object) -> NoReturn:
        """Raises ModelError: such a layer cannot be pickled."""
        raise ModelError(
            "a cache that evicts belongs to its model and its plan, and cannot be pickled or saved; save the token ids"
            " and read them again"
        )

    def _begin(self) -> None:
        self.columns = 0
        self.counts: list[int] = []
        self.forwards = 0
        self.real: Tensor | None = None
        self.dropped: Tensor | None = None
        self.missing: Tensor | None = None  # dropped in front of a row's tokens 0, 1, ..., n - 1 and all others: (b, n)
        self.digest: Tensor | None = None
        self._expects = self._waiting = self.busy = False

    @abstractmethod
    def attend(self, new: New) -> Tensor:
        """Attention (b, heads, q, d) of new tokens over entries held and over themselves; then entries are evicted."""

    @abstractmethod
    def held(self) -> list[Tensor]:
        """The tensors that hold keys and values."""

    @abstractmethod
    def stacked(self) -> tuple[Tensor, Tensor] | None:
        """Keys and values held, (b, kv_heads, n, d) in the order of the text; None where rows or heads hold different
        numbers of them."""

    @abstractmethod
    def bookkeeping(self) -> list[Tensor]:
        """Whatever else the layer keeps in memory."""

    @abstractmethod
    def entries(self) -> list[int]:
        """Entries each KV head holds of the first row."""

    @abstractmethod
    def select_rows(self, index: Tensor) -> None:
        """Make the batch the rows ``index`` of what it is now."""

    @property
    def keys(self) -> Tensor | None:
        """Keys held, (b, kv_heads, n, d), as transformers and its users read them; None before the first forward.

        Raises ModelError where rows or KV heads hold different numbers of entries.
        """
        return self._read_only()[0]

    @property
    def values(self) -> Tensor | None:
        """Values held, as ``keys``; raises ModelError as they do."""
        return self._read_only()[1]

    def _read_only(self) -> tuple[Tensor | None, Tensor | None]:
        """Keys and values as one tensor each; raises ModelError where they are not."""
        if not self.counts:
            return None, None
        found = self.stacked()
        if found is None:
            raise ModelError(
                "KV heads or rows of this layer hold different numbers of entries, so its keys and values are no one"
                " tensor; cache.entries() counts them, and layer.held() gives them group by group"
            )
        return found

    def expect(self, real: Tensor | None, dropped: Tensor | None = None) -> None:
        """Announce a forward whose attention will ask this layer.

        ``real`` bool (b, q) and ``dropped`` int64 (b, q), as in the class, for the tokens that the layer is given.
        """
        self._expects, self._waiting, self.real, self.dropped = True, False, real, dropped

    def begin(self, rows: int) -> None:
        """Begin a forward of ``rows`` rows.

        Raises ModelError for another number of rows than before, and while another forward uses the cache.
        """
        if self.counts and len(self.counts) != rows:
            raise ModelError(f"a cache of {len(self.counts)} rows was given {rows}; start a new cache")
        if self.busy:
            raise ModelError(
                "this cache that evicts is in the midst of another forward, as where threads share one; give each a"
                " cache of its own"
            )
        self.busy = True

    def end(self) -> bool:
        """End a forward; returns whether the layer was given keys that no attention asked it about."""
        unanswered = self._waiting
        self._expects, self._waiting, self.real, self.dropped, self.busy = False, False, None, None, False
        return unanswered

    def remember(self, ids: Tensor | None) -> None:
        """Take in the token ids (b, q) of the forward that ended, None where embeddings were put in."""
        before = 0 if ids is None else self.columns - ids.shape[1]
        if ids is None or (before and self.digest is None):
            self.digest = None
            return
        found = _digest(ids, before)
        self.digest = found if self.digest is None else self.digest + found

    def begins(self, ids: Tensor) -> bool:
        """Whether token ids (b, n) go on from those that were read, as far as that is known."""
        if self.digest is None or len(ids) != len(self.digest):
            return True
        read = ids[:, : self.columns].to(self.digest.device)
        return ids.shape[1] > self.columns and torch.equal(_digest(read, 0), self.digest)

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """The new keys (b, kv_heads, q, d), tagged, and the new values; ``answer`` stores them.

        Raises ModelError where no forward was announced.
        """
        if not self._expects:
            raise ModelError(
                "this cache was given to a model whose attention headwise did not patch; use it inside"
                " the `with` block it was filled in, or make it with headwise.cache(model, recipe) for this very model"
            )
        self._expects, self._waiting, self.is_initialized = False, True, True
        tagged = key_states.view_as(key_states)
        setattr(tagged, TAG, self)
        return tagged, value_states

    def answer(self, new: New) -> Tensor:
        """Attention of new tokens (b, heads, q, d), counted; ModelError for a mask of another shape than theirs."""
        self._check_real(new)
        new = attrs.evolve(new, real=self.real)
        if not self.counts:
            self.counts = [0] * new.batch
        if self.dropped is not None:
            self._miss(new, self.dropped)
        out = self.attend(new)
        self._waiting = False
        self.columns += new.length
        self.forwards += 1
        return out

    def _check_real(self, new: New) -> None:
        """Raise ModelError where the padding announced is not of as many rows and tokens as the new ones."""
        if self.real is not None and self.real.shape != (new.batch, new.length):
            raise ModelError(
                f"the attention mask is for {tuple(self.real.shape)} new tokens (rows, tokens), and a layer was given"
                f" {(new.batch, new.length)}; give a mask over all tokens, past ones included"
            )

    def _tokens(self, new: New, rows: int) -> Tensor:
        """Which token of its row each new one is, int64 (rows, q), -1 for padding; of the first rows only."""
        before = torch.tensor(self.counts[:rows], device=new.query.device).unsqueeze(1)
        if new.real is None:
            return before + torch.arange(new.length, device=new.query.device)
        return torch.where(new.real, before + new.real.cumsum(dim=-1) - 1, -1)

    def _miss(self, new: New, dropped: Tensor) -> None:
        """Remember how many tokens are missing in front of the new ones, (b, q)."""
        tokens = self._tokens(new, new.batch)
        every = torch.arange(int(tokens.max()) + 1, device=tokens.device).expand(new.batch, -1)
        before = every.new_tensor(self.counts).unsqueeze(1)
        earlier = self.number(every) - every
        total = (self.number(before) - before) + dropped.amax(dim=1, keepdim=True)
        missing = torch.where(every < before, earlier, total)
        there = torch.where(tokens < 0, every.shape[1], tokens)
        wide = torch.cat([missing, total], dim=1).scatter(1, there, total - dropped.amax(dim=1, keepdim=True) + dropped)
        self.missing = torch.cat([wide[:, :-1], total], dim=1)

    def number(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Numbers of ``tokens`` (b, n) in the whole text of their rows, which visual tokens were dropped from.

        ``rows`` (m,): the rows that tokens (m, n) belong to, where they are not one after the other.
        """
        if self.missing is None:
            return tokens
        missing = self.missing if rows is None else self.missing[rows]
        return tokens + missing.gather(1, tokens.clamp(0, missing.shape[1] - 1).long())

    def _count(self, new: New) -> None:
        """Add the new tokens of each row that are no padding to those read."""
        added = [new.length] * new.batch if new.real is None else new.real.sum(dim=-1).tolist()
        self.counts = [count + more for count, more in zip(self.counts, added, strict=True)]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing is reserved beforehand."""

    def get_seq_length(self) -> int:
        """Tokens the layer was given, padding included."""
        return self.columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Masks are made over the whole text."""
        return self.columns + query_length, 0

    def get_max_length(self) -> int:
        """No maximum: the text may go on for ever."""
        return -1

    def offload(self) -> None:
        """Raises ModelError: entries stay on the model's device."""
        raise ModelError("a cache that evicts is not moved off its device; generate without offloading it")

    prefetch = offload

    def reset(self) -> None:
        """Forget everything that was read."""
        self.is_initialized = False
        self._begin()

    def crop(self, tokens_to_remove: int) -> None:
        """Raises ModelError for any number but 0: evicted entries do not come back."""
        if tokens_to_remove:
            raise ModelError(
                "a cache that evicts cannot be rolled back, as assisted generation asks; generate without an assistant"
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make the batch its own rows ``beam_idx``, int64 (b,), as beam search does."""
        self._rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row ``repeats`` times, the copies one after the other."""
        self._rows(torch.arange(len(self.counts)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows ``indices``, int64 (k,)."""
        self._rows(torch.arange(len(self.counts))[indices.cpu()])

    def _rows(self, index: Tensor) -> None:
        if self.counts:
            self.select_rows(index)
            self.digest = None if self.digest is None else self.digest[index.to(self.digest.device)]
            if self.missing is not None:
                self.missing = self.missing.index_select(0, index.to(self.missing.device))
            self.counts = [self.counts[row] for row in index.tolist()]


@attrs.frozen(eq=False)
class Layers:
    """Makes the layers of caches that evict by one strategy; ``rule`` is the text that the user names it by."""

    rule: str
    make: Callable[[], list[EvictingLayer]]

    def __call__(self) -> list[EvictingLayer]:
        """One empty cache layer for each layer of the model."""
        return self.make()


class EvictingCache(Cache):  # type: ignore[misc]
    """A KV cache that evicts; pass it as ``past_key_values``. It serves the one model it was made for."""

    def __init__(self, layers: Sequence[EvictingLayer], hold: object = None) -> None:
        super().__init__(layers=list(layers))
        self._hold = hold  # a handle: the model's attention stays patched while this cache or a copy of it lives

    def __repr__(self) -> str:
        """The rule it evicts by, and how much it holds of what it read, in one line."""
        held = self.entries() if self.layers[0].counts else np.zeros((1, 1))
        most = f"{held.min():g}" if held.min() == held.max() else f"{held.min():g} to {held.max():g}"
        read, of = self.get_seq_length(), f"{len(self.layers)} layers"
        return f"<cache by {self.layers[0].rule}: {most} entries per KV head in {of}, {read} tokens read>"

    def kv_bytes(self) -> int:
        """Bytes of all keys and values held, measured on their storages."""
        return kv_bytes(self)

    def bookkeeping_bytes(self) -> int:
        """Bytes of everything else the cache holds: positions, remembered queries, attention received."""
        return _storage_bytes([tensor for layer in self.layers for tensor in layer.bookkeeping()])

    def entries(self) -> npt.NDArray[np.int64]:
        """Entries held per layer and KV head, of the first row: (layers, kv_heads)."""
        return np.array([layer.entries() for layer in self.layers], dtype=np.int64)


def kv_bytes(cache: Cache) -> int:
    """Bytes of all keys and values a transformers cache holds, measured on their storages."""
    tensors: list[Tensor] = []
    for layer in cache.layers:
        tensors += layer.held() if isinstance(layer, EvictingLayer) else [layer.keys, layer.values]
    return _storage_bytes([tensor for tensor in tensors if tensor is not None])


def _digest(ids: Tensor, start: int) -> Tensor:
    """A hash int64 (b,) of token ids (b, n), the first of which is token ``start``; those of parts add up."""
    first = pow(FACTOR, start, 2**64)
    powers = torch.full(ids.shape[1:], FACTOR, device=ids.device).cumprod(dim=0)
    return ((ids + 1) * (powers * (first - (first >> 63 << 64)))).sum(dim=-1)


def _storage_bytes(tensors: Sequence[Tensor]) -> int:
    """A slice keeps its whole storage alive, so storages are counted, each once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
