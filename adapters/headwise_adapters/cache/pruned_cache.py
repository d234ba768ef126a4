"""A transformers cache whose layers hold what visual pruning left, each layer its own tokens of one text.

Transformers takes the length of the first layer for the length of the text, and crops, repeats and selects rows of all
layers alike. Therefore the object's class is replaced by a subclass when it is filled under pruning; the subclass knows
which tokens each layer holds, and answers for the whole text. It takes new keys only in a forward that told it which
tokens they are. Once it is emptied, or rolled back to where nothing was dropped yet, it gets its own class back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache as cached
from typing import NoReturn
from weakref import ref

import attrs
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicSlidingWindowLayer

from headwise.errors import ModelError
from headwise_adapters import patching
from headwise_adapters.cache.masks import Tokens


@attrs.define(eq=False)
class Holdings:
    """Which tokens the layers of a cache hold of a text of ``seen`` tokens.

    ``tokens``: layer -> its tokens; layers without an entry hold all. ``text``: the language model that read them, at
    positions that are ``compact`` or not.
    """

    text: Callable[[], nn.Module | None]
    compact: bool
    seen: int = 0
    tokens: dict[int, Tokens] = attrs.field(factory=dict)

    def columns(self, layer: int) -> int:
        """Tokens of each row that a layer holds."""
        return self.tokens[layer].index.shape[1] if layer in self.tokens else self.seen

    def put(self, layer: int, tokens: Tokens, seen: int) -> None:
        """Note that a layer holds ``tokens`` of a text of ``seen`` tokens from this forward on."""
        self.tokens[layer], self.seen = tokens, seen

    def change(self, made: Callable[[Tokens], Tokens]) -> None:
        """Replace each layer's tokens by what ``made`` returns for them; layers of one stage go on sharing theirs."""
        changed = {id(tokens): made(tokens) for tokens in self.tokens.values()}
        self.tokens = {layer: changed[id(tokens)] for layer, tokens in self.tokens.items()}


class PrunedCache(Cache):  # type: ignore[misc]
    """The class that is put in front of a cache's own class while its layers hold different tokens of a text."""

    _holdings: Holdings

    def check(self, text: nn.Module, compact: bool, first: int, rows: int) -> None:
        """Raise ModelError unless a forward of ``rows`` rows by ``text`` can go on with this cache.

        ``compact``: whether the attached recipe renumbers positions. ``first``: the first layer whose masks and
        positions it cuts to the tokens that are left.
        """
        holdings, named = self._holdings, ("keep", "compact")
        earliest, message = min(holdings.tokens), ""
        if holdings.text() is not text:
            message = "this cache was filled under visual pruning by another model"
        elif holdings.compact != compact:
            message = (
                f"this cache was filled with positions={named[holdings.compact]}, and the recipe that is attached here"
                f" has positions={named[compact]}"
            )
        elif earliest < first:
            message = (
                f"this cache was pruned from layer {earliest} on, and the recipe that is attached here cuts masks and"
                f" positions to size from layer {first} on only"
            )
        elif any(len(tokens.index) != rows for tokens in holdings.tokens.values()):
            message = f"this cache holds {len(holdings.tokens[earliest].index)} rows and was given {rows}"
        if message:
            raise ModelError(f"{message}; start with an empty cache")

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Add new keys and values (b, kv_heads, n, d) of a layer.

        Raises ModelError outside of a forward that told the cache which tokens they are.
        """
        if patching.recall(PrunedCache) is not self:
            raise ModelError(
                "this cache was filled under visual pruning, and this model is not attached to the recipe that knows"
                " which tokens it holds; use it inside the `with` block it was filled in, or start with an empty cache"
            )
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens the text has, also where the layer holds fewer."""
        return self._holdings.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Length and offset of a layer's mask. It covers the whole text where tokens were dropped, and is cut later."""
        if layer_idx not in self._holdings.tokens:
            sizes: tuple[int, int] = super().get_mask_sizes(query_length, layer_idx)
            return sizes
        return self._holdings.seen + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last ``-tokens_to_remove`` tokens of the text from all layers that hold them.

        Raises ModelError for a positive number, and for layers that cannot be rolled back.
        """
        if tokens_to_remove > 0:
            raise ModelError(f"crop takes a negative number (-2 removes the last 2 tokens), not {tokens_to_remove}")
        for layer in self.layers if tokens_to_remove else ():
            if not layer.is_croppable:
                layer.crop(tokens_to_remove)  # says why not
                raise ModelError(f"a {type(layer).__name__} cannot be rolled back where visual tokens were dropped")
            if window_of(layer) and layer.get_seq_length() >= layer.sliding_window and not layer.record_past:
                raise ModelError(
                    "a cache that holds no more than a sliding window cannot be rolled back once the text is longer;"
                    " activate_past_recording before it is read"
                )
        holdings = self._holdings
        before = [holdings.columns(number) for number in range(len(self.layers))]
        length = holdings.seen = max(0, holdings.seen + tokens_to_remove)
        holdings.change(lambda tokens: tokens.before(length))
        for number, layer in enumerate(self.layers):
            layer.crop(holdings.columns(number) - before[number])
        holdings.tokens = {layer: left for layer, left in holdings.tokens.items() if not left.complete(length)}
        if not holdings.tokens:
            self._become_stock()

    def reset(self) -> None:
        """Forget everything that was read."""
        for layer in self.layers:
            layer.is_initialized &= not layer.is_sliding  # so that nothing is left of what it held
        if self.is_croppable and not any(self.is_sliding):
            self.crop(-self._holdings.seen)  # some versions of transformers leave zeros where keys were
        else:
            self._become_stock()
        self.reset()  # that of the class it is now

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make the batch its own rows ``beam_idx``, int64 (b,), as beam search does."""
        super().reorder_cache(beam_idx)
        self._holdings.change(lambda tokens: tokens.picked(beam_idx))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the rows ``indices``, int64 (k,)."""
        super().batch_select_indices(indices)
        self._holdings.change(lambda tokens: tokens.picked(indices))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row ``repeats`` times, the copies one after the other."""
        super().batch_repeat_interleave(repeats)
        self._holdings.change(lambda tokens: tokens.picked(torch.arange(len(tokens.index)).repeat_interleave(repeats)))

    def _become_stock(self) -> None:
        del self._holdings
        self.__class__ = type(self).__bases__[1]

    def __deepcopy__(self, memo: dict[int, object]) -> PrunedCache:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def __reduce_ex__(self, _: object) -> NoReturn:
        """Raises ModelError: such a cache cannot be pickled."""
        raise ModelError(
            "a cache that was filled under visual pruning belongs to its model and its recipe, and cannot be pickled or"
            " saved; copy.deepcopy copies it"
        )


def held_of(cache: Cache | None, layer: int) -> Tokens | None:
    """The tokens that a layer holds, None where it holds all that were read."""
    return cache._holdings.tokens.get(layer) if isinstance(cache, PrunedCache) else None


def holdings_of(cache: Cache, text: nn.Module, compact: bool) -> Holdings:
    """What the layers of a cache hold. The cache becomes one for pruned tokens where it is not.

    Raises ModelError for a cache that cannot become one.
    """
    if not isinstance(cache, PrunedCache):
        check_kind(cache)
        cache._holdings = Holdings(ref(text), compact)
        cache.__class__ = _pruned(cache.__class__)
        expect(cache)
    found: Holdings = cache._holdings
    return found


def check_kind(cache: Cache | None) -> None:
    """Raise ModelError for a cache that cannot become one for pruned tokens."""
    if cache is None:
        return
    if not hasattr(cache, "layers"):
        raise ModelError(
            f"a {type(cache).__name__} has no layers that could be told which tokens they hold; generate with the"
            " default dynamic cache"
        )
    if cache.is_compileable or any(one.is_sliding and not window_of(one) for one in cache.layers):
        raise ModelError(
            f"{type(cache).__name__} has a fixed length, which pruned layers cannot share; generate with the default"
            " dynamic cache"
        )


def window_of(layer: CacheLayerMixin) -> int | None:
    """The sliding window of a cache layer that holds no more than the last tokens in it, None for any other."""
    window: int | None = layer.sliding_window if type(layer) is DynamicSlidingWindowLayer else None
    return window


def check_whole(cache: Cache | None, layers: int) -> None:
    """Raise ModelError for a cache of a model with ``layers`` layers that have not all read the same text."""
    if cache is None or cache.is_compileable or not cache.get_seq_length():
        return
    seen = cache.get_seq_length()
    lengths = [layer.get_seq_length() for layer in cache.layers]
    lengths += [0] * (layers - len(lengths))
    known = cache._holdings.columns if isinstance(cache, PrunedCache) else lambda _: seen
    if any(length != known(number) for number, length in enumerate(lengths)):
        raise ModelError(
            "the layers of this cache hold other numbers of tokens than they were given, as after a forward that was"
            " broken off; start with an empty cache"
        )


def expect(cache: Cache) -> None:
    """Let a cache take new keys until the present forward ends."""
    patching.remember(PrunedCache, cache)


@cached
def _pruned(kind: type[Cache]) -> type[Cache]:
    """The class that caches of a class become."""
    return type(f"Pruned{kind.__name__}", (PrunedCache, kind), {"__module__": kind.__module__})
