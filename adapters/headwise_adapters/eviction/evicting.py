"""Patches a stock model so that its attention asks caches that evict: attention functions, masks, and caches.

The attention functions of a decoder are called through ours. Where new keys carry the tag of a cache layer that evicts,
that layer computes the attention; everywhere else the model's own function does.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, TypeGuard
from weakref import ref

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan, ScorePlan, WindowPlan, clamp_to_sliding_window
from headwise.pipeline import Pipeline
from headwise_adapters import patching
from headwise_adapters.cache.masks import real_flags
from headwise_adapters.cache.pruned_cache import PrunedCache
from headwise_adapters.cache.ragged_cache import NO_MASK, TAG, EvictingCache, EvictingLayer, Layers, New
from headwise_adapters.cache.score_layer import ScoreLayer
from headwise_adapters.cache.window_layer import WindowLayer
from headwise_adapters.eviction import served
from headwise_adapters.eviction.ruling import Block, entered, forward_of
from headwise_adapters.eviction.trace import Trace
from headwise_adapters.parts import TextParts
from headwise_adapters.patching import Kwargs

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedConfig
    from transformers.utils import ModelOutput


class AttentionPatch(patching.Patch):
    """A decoder whose attention asks caches that evict.

    It is held by the blocks that evict and by the caches of :func:`headwise.cache`. Everything else that runs while it
    is on is served as the stock model serves it.
    """

    def __init__(self, model: nn.Module, decoder: TextParts) -> None:
        self._decoder = decoder
        self._names = list(inspect.signature(decoder.text.forward).parameters)
        with ExitStack() as patches:
            patches.enter_context(patching.eagerly(model, decoder.modules()))
            patches.enter_context(patching.around(decoder.text, self._text))
            if hasattr(model, "generate"):
                patches.enter_context(patching.method(model, "generate", _continuing))
            for layer in range(len(decoder.layers)):
                module = decoder.attention_of(layer)
                patches.enter_context(patching.attending(module, _asking_attention, innermost=True))
            super().__init__(patches)

    @classmethod
    def held(cls, model: nn.Module, decoder: TextParts) -> patching.PatchHandle:
        """A handle of the one such patch of a decoder."""
        return cls.shared(decoder.text, lambda: cls(model, decoder))

    def _text(self, call: patching.Call, args: patching.Args, kwargs: Kwargs) -> object:
        try:
            with forward_of(self._decoder.text, self) as block:
                return self._served(block, call, {**dict(zip(self._names, args, strict=False)), **kwargs})
        finally:
            self.tidy()

    def _served(self, block: Block | None, call: patching.Call, kwargs: Kwargs) -> object:
        """A forward of the decoder, with a cache that evicts where the block or the caller brings one."""
        cache, layers = kwargs.get("past_key_values"), None if block is None else block.layers
        once = layers is not None and cache is None and not _wanted(kwargs, self._decoder.text.config, "use_cache")
        if block is not None and layers is not None:
            cache = _converted(cache, layers)
            block.trace.fill(cache.layers)
        if not _evicts(cache):
            return call(**kwargs)
        kwargs = {**kwargs, "past_key_values": cache}
        source = kwargs["inputs_embeds"] if kwargs.get("input_ids") is None else kwargs["input_ids"]
        with self._begun(cache, source.shape[0]):
            self._expect(cache, kwargs, source.shape[1], once=once)
            if block is None or block.dropper is None:
                # The layers know the padding, and a mask with four axes is handed through: none is made of all tokens.
                kwargs["attention_mask"] = torch.ones(NO_MASK, dtype=torch.bool, device=source.device)
            output = call(**kwargs)
        cache.layers[0].remember(kwargs.get("input_ids"))
        return _without(output, cache) if once else output

    @contextmanager
    def _begun(self, cache: EvictingCache, rows: int) -> Iterator[None]:
        """A forward of ``rows`` rows with ``cache``, which no other forward may use meanwhile.

        Raises ModelError where another one does, and at the end where the model did not ask the cache.
        """
        with _lock:
            cache.layers[0].begin(rows)
        try:
            yield
        finally:
            unanswered = [layer.end() for layer in cache.layers]
        if any(unanswered):
            raise ModelError(
                f"{type(self._decoder.text).__name__} filled a cache that evicts by an attention that headwise did not"
                " patch; it is not served"
            )

    def _expect(self, cache: EvictingCache, kwargs: Kwargs, length: int, *, once: bool) -> None:
        """Tell the layers of a cache which of ``length`` new tokens are padding.

        Raises ModelError for what a cache that evicts cannot serve, before anything is computed.
        """
        if cache.layers[0].text() is not self._decoder.text:
            raise ModelError("this cache was made for another model; start with one that was made for this model")
        mask = kwargs.get("attention_mask")
        if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2):
            given = f"with {mask.ndim} axes" if isinstance(mask, Tensor) else f"as a {type(mask).__name__}"
            raise ModelError(f"an attention mask {given} cannot be followed by a cache that evicts; give flags (b, n)")
        served.covering(mask, int(cache.get_seq_length()) + length)
        real = None if mask is None else real_flags(mask, length)
        served.call(self._decoder.text, kwargs, real, counted=once or cache.layers[0].moves)
        self._check(cache, kwargs, once=once)
        real = None if real is None or bool(real.all()) else real
        for layer in cache.layers:
            layer.expect(real)

    def _check(self, cache: EvictingCache, kwargs: Kwargs, *, once: bool) -> None:
        """Raise ModelError for what this forward is asked for and a cache that evicts cannot do."""
        text = self._decoder.text
        if text.training and getattr(text, "gradient_checkpointing", False):
            raise ModelError(
                "gradient checkpointing takes the cache from the layers, and KV eviction works in the cache; switch"
                " checkpointing off first"
            )
        if once and not cache.layers[0].shows_at_once:
            raise ModelError(
                "score-based eviction takes entries out of the cache after a forward, and without one (use_cache=False)"
                " nothing would be evicted; use a cache"
            )
        if _wanted(kwargs, text.config, "output_attentions"):
            raise ModelError(
                "attention maps (output_attentions) are not made where KV entries are evicted; ask for them outside"
            )
        if len({layer.forwards for layer in cache.layers}) > 1:
            raise ModelError("a forward with this cache was broken off halfway; start a new cache")


def _continuing(original: patching.Call) -> patching.Call:
    """``generate``, which refuses to go on from a cache that evicts with another text."""
    signature = inspect.signature(original)

    @wraps(original)  # transformers reads signatures
    def generate(*args: object, **kwargs: object) -> object:
        _check_continued(patching.arguments_of(signature, args, kwargs))
        return original(*args, **kwargs)

    return generate


def _check_continued(given: Kwargs) -> None:
    """Raise ModelError for a prompt that does not begin with what the cache read: its beginning would be skipped."""
    cache, mask = given.get("past_key_values"), given.get("attention_mask")
    ids = given.get("inputs") if given.get("input_ids") is None else given["input_ids"]
    if not _evicts(cache) or not isinstance(ids, Tensor) or ids.ndim != 2:
        return
    alone = isinstance(mask, Tensor) and mask.shape[-1] != ids.shape[1]  # new tokens, without those that were read
    if not alone and not cache.layers[0].begins(ids):
        raise ModelError(
            "this cache has read another text than the prompt begins with, as where a pipeline gives one cache to all"
            " of its prompts; give each text a cache of its own, or use headwise.attach"
        )


_lock = threading.Lock()  # of caches that begin a forward


@contextmanager
def attached(
    model: nn.Module,
    decoder: TextParts,
    layers: Layers | None,
    prune: Callable[[ExitStack, Trace], object] | None = None,
) -> Iterator[Trace]:
    """Inside, forwards of a model evict KV entries and drop visual tokens; the model is as it was afterwards.

    Yields what these forwards leave to be read.

    ``layers``: makes the layers of caches that evict, None where nothing is evicted. ``prune``: puts what drops visual
    tokens on the model until the stack that it is given closes, and returns it; None where none are dropped.
    """
    trace = Trace(prunes=prune is not None, evicts=layers is not None)
    block = Block(text=decoder.text, layers=layers, trace=trace)
    with ExitStack() as patches:
        if layers is not None:
            patches.callback(AttentionPatch.held(model, decoder).release)
        if prune is not None:
            block.dropper = prune(patches, trace)
        installed = patches.pop_all()
    with entered(block, installed):
        yield trace


def evicting_cache(model: nn.Module, decoder: TextParts, layers: Layers) -> EvictingCache:
    """An empty cache that evicts; the decoder's attention stays patched as long as it lives."""
    return EvictingCache(layers(), AttentionPatch.held(model, decoder))


def layers_of(decoder: TextParts, pipeline: Pipeline, plan: EvictionPlan, *, contiguous: bool = True) -> Layers:
    """What makes the cache layers of a plan; ``contiguous``: position ids count the tokens that layers see.

    Raises ModelError where the decoder's attention is not what such layers compute.
    """
    plan = clamp_to_sliding_window(plan)
    needs_rotation = plan.positions == "relative" if isinstance(plan, WindowPlan) else plan.rerotate or plan.rotates
    turns = served.check(decoder, plan.geometry, moves=needs_rotation)
    layers, sliding = plan.geometry.layers, plan.geometry.sliding
    strategy = pipeline.recipe.strategies.get("kv_eviction")
    rule = "nothing" if strategy is None else strategy.text

    def make() -> list[EvictingLayer]:
        made: list[EvictingLayer]
        if isinstance(plan, ScorePlan):
            bounds = sliding or (None,) * layers
            made = [ScoreLayer(plan, layer, pipeline, turns[layer], window) for layer, window in enumerate(bounds)]
        else:
            made = [WindowLayer(plan, layer, turns[layer], contiguous) for layer in range(layers)]
        for one in made:
            one.text, one.rule, one.moves = ref(decoder.text), rule, contiguous and needs_rotation
        return made

    return Layers(rule, make)


def _asking_attention(function: patching.Call, args: patching.Args, kwargs: Kwargs) -> object:
    """Attention of the layer that tagged the keys, (b, q, heads, d), or of the model's own function without a tag.

    Raises ModelError for keys without a tag under a mask that only layers of caches can read.
    """
    module, query, key, value, mask = (*args, kwargs.get("attention_mask"))[:5]
    layer: EvictingLayer | None = getattr(key, TAG, None)
    if layer is not None:
        scaling = _scaling(module, query, kwargs)
        new = New(query=query, key=key, value=value, scaling=scaling, positions=kwargs.get("position_ids"))
        return layer.answer(new).transpose(1, 2).contiguous(), None
    if mask is not None and mask.shape == NO_MASK and key.shape[2] > 1:
        raise ModelError(
            f"{type(module).__name__} was called without a cache, which would tell what a token may see; KV eviction"
            " serves layers that hand their keys to the cache"
        )
    return function(*args, **kwargs)


def _scaling(module: nn.Module, query: Tensor, kwargs: Kwargs) -> float:
    """What products of queries (b, heads, q, d) and keys are multiplied by.

    Raises ModelError for arguments of the attention function that a cache layer does not compute with.
    """
    if kwargs.get("dropout"):
        raise ModelError(
            "attention_dropout is not applied where KV entries are evicted; set the config's attention_dropout to 0 or"
            " call model.eval()"
        )
    # `generate` hands on tokenizers, too, which are nothing to attention.
    numbers = {name: given for name, given in kwargs.items() if isinstance(given, Tensor | int | float)}
    served.strange(module, numbers, "leave it out of the call")
    return float(kwargs.get("scaling") or query.shape[-1] ** -0.5)


def _evicts(cache: Cache | None) -> TypeGuard[EvictingCache]:
    layers: Sequence[object] = getattr(cache, "layers", None) or ()
    return len(layers) > 0 and isinstance(layers[0], EvictingLayer)


def _wanted(kwargs: Kwargs, config: PreTrainedConfig, name: str) -> bool:
    """Whether an output is asked for, in the call or else by the config."""
    given = kwargs.get(name)
    return bool(getattr(config, name, False) if given is None else given)


def _without(output: ModelOutput | tuple[object, ...], cache: Cache) -> object:
    """An output without the cache, which the caller did not ask for: given back, its text would be read twice."""
    if isinstance(output, tuple):
        return tuple(part for part in output if part is not cache)
    output.past_key_values = None
    return output


def _converted(cache: Cache | None, layers: Layers) -> Cache:
    """``cache`` if it evicts already; an empty dynamic one is given layers that do, and stays the caller's object.

    Raises ModelError for a cache that evicts by another rule.
    """
    if cache is None:
        return EvictingCache(layers())
    if _evicts(cache):
        _check_rule(cache.layers[0].rule, layers.rule)
        return cache
    _check_convertible(cache)
    cache.layers = layers()
    cache.layer_class_to_replicate = None
    return cache


def _check_rule(held: str, rule: str) -> None:
    """Raise ModelError where a cache was filled by another strategy than the one that is attached."""
    if rule != held:
        raise ModelError(
            f"this cache evicts by {held}, and the recipe that is attached here by {rule}; start with an empty cache"
        )


def _check_convertible(cache: Cache) -> None:
    """Raise ModelError for a cache that cannot be given layers that evict."""
    if type(cache) is not DynamicCache and not isinstance(cache, PrunedCache):
        raise ModelError(
            f"a {type(cache).__name__} cannot evict; generate with the default dynamic cache, or pass"
            " headwise.cache(model, recipe)"
        )
    if cache.offloading:
        raise ModelError(
            "a cache that is moved off its device between layers cannot evict; generate without"
            " cache_implementation='offloaded'"
        )
    if cache.get_seq_length():
        raise ModelError(
            f"this cache holds {cache.get_seq_length()} tokens that were read before the recipe was attached; start"
            " with an empty one"
        )
