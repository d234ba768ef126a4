"""Making a stock model ask its cache: attention functions, masks, and caches that `generate` brings.

Attention modules get a copy of their config that names our attention function. New keys that carry the tag of an
evicting layer are answered by that layer; all others by the function the model had. The model's own config is never
touched, so masks and the vision tower stay as they are, and taking it off again is one assignment.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from headwise.errors import ModelError
from headwise.eviction import EvictionPlan, ScorePlan, WindowPlan, within
from headwise.pipeline import Pipeline
from headwise_adapters.anatomy import Decoder
from headwise_adapters.ragged_cache import NO_MASK, TAG, EvictingCache, EvictingLayer, New, real_tokens
from headwise_adapters.rotary import Rotary
from headwise_adapters.score_layer import ScoreLayer
from headwise_adapters.window_layer import WindowLayer

INTERFACE = "headwise_evict"
_EQUIPPED = "_headwise_equipped"  # attribute of a decoder whose attention asks the cache

Layers = Callable[[], list[EvictingLayer]]


class Equipment:
    """A decoder's attention modules, asking; goes when the last lease does.

    ``make_layers``: while a recipe is attached, makes the layers of every cache that comes empty. ``drops_tokens``:
    layers see fewer tokens than the model thinks, so they need the real masks.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.make_layers: Layers | None = None
        self.drops_tokens = False
        self.leases = 0
        self._serves_once = False
        self._configs = [cast(Any, decoder.attention_of(layer)).config for layer in range(len(decoder.layers))]
        for layer, config in enumerate(self._configs):
            module: Any = decoder.attention_of(layer)
            module._headwise_attention = _function_of(module)
            asking = copy.copy(config)
            asking._attn_implementation_internal = INTERFACE
            module.config = asking
        self._hooks = [
            decoder.text.register_forward_pre_hook(self._enter, with_kwargs=True),
            decoder.text.register_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]
        setattr(decoder.text, _EQUIPPED, self)

    def remove(self) -> None:
        """Leave the decoder as it was."""
        for hook in self._hooks:
            hook.remove()
        for layer, config in enumerate(self._configs):
            module: Any = self._decoder.attention_of(layer)
            module.config = config
            del module._headwise_attention
        delattr(self._decoder.text, _EQUIPPED)

    def _enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        cache, mask = kwargs.get("past_key_values"), kwargs.get("attention_mask")
        self._serves_once = cache is None and kwargs.get("use_cache") is False and self.make_layers is not None
        if self.make_layers is not None:
            cache = _converted(cache, self.make_layers)
        if not _evicts(cache):
            return None
        source = args[0] if args else kwargs.get("input_ids")
        source = kwargs["inputs_embeds"] if source is None else source
        self._check(cache, kwargs)
        real = real_tokens(mask, source.shape[1])
        for layer in cache.layers:
            layer.expect(real)
        kwargs = {**kwargs, "past_key_values": cache}
        if not self.drops_tokens:
            # The layers know the padding, and a mask with four axes is handed through: none is made of the whole text.
            kwargs["attention_mask"] = torch.ones(NO_MASK, dtype=torch.bool, device=source.device)
        return args, kwargs

    def _check(self, cache: Any, kwargs: dict[str, Any]) -> None:
        """Refuse what a cache that evicts cannot serve, before anything is computed."""
        mask, text = kwargs.get("attention_mask"), cast(Any, self._decoder.text)
        if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2):
            given = f"with {mask.ndim} axes" if isinstance(mask, Tensor) else f"as a {type(mask).__name__}"
            raise ModelError(f"an attention mask {given} cannot be followed by a cache that evicts; give flags (b, n)")
        if text.training and getattr(text, "gradient_checkpointing", False):
            raise ModelError(
                "gradient checkpointing takes the cache from the layers, and KV eviction works in the cache; switch"
                " checkpointing off first"
            )
        if self._serves_once and not cache.layers[0].shows_at_once:
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

    def _leave(self, _: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Without `use_cache` a cache serves one forward; handing it back would have the text read twice."""
        cache = kwargs.get("past_key_values")
        if not _evicts(cache):
            return output
        unanswered = [layer.end() for layer in cache.layers]
        if output is None:  # an error is on its way
            return output
        if any(unanswered):
            raise ModelError(
                f"{type(self._decoder.text).__name__} filled a cache that evicts and did not ask it what is there; it"
                " is not served"
            )
        if self._serves_once:
            output.past_key_values = None
        return output


class Lease:
    """Keeps a decoder equipped for as long as it lives; copies share it."""

    def __init__(self, decoder: Decoder) -> None:
        found = getattr(decoder.text, _EQUIPPED, None)
        self.equipment: Equipment = found or Equipment(decoder)
        self.equipment.leases += 1
        self._open = True

    def close(self) -> None:
        """Give it back; the last one takes the equipment off."""
        if self._open:
            self._open = False
            self.equipment.leases -= 1
            if not self.equipment.leases:
                self.equipment.remove()

    def __deepcopy__(self, _: object) -> Lease:
        """A copied cache holds the same lease."""
        return self

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self.close()


@contextmanager
def evicting(decoder: Decoder, layers: Layers, *, drops_tokens: bool = False) -> Iterator[None]:
    """Give every empty cache that comes along layers that evict, inside the context."""
    lease = Lease(decoder)
    equipment = lease.equipment
    try:
        if equipment.make_layers is not None:
            raise ModelError("this model is already attached to a recipe; leave that `with` block first")
        equipment.make_layers, equipment.drops_tokens = layers, drops_tokens
        yield
    finally:
        if equipment.make_layers is layers:
            equipment.make_layers, equipment.drops_tokens = None, False
        lease.close()


def evicting_cache(decoder: Decoder, layers: Layers) -> EvictingCache:
    """An empty cache that evicts; the decoder asks it for as long as it lives."""
    return EvictingCache(layers(), Lease(decoder))


def layers_of(decoder: Decoder, pipeline: Pipeline, plan: EvictionPlan, *, contiguous: bool = True) -> Layers:
    """What makes the cache layers of a plan; ``contiguous``: position ids count the tokens that layers see."""
    plan = within(plan)
    needs_rotation = plan.positions == "relative" if isinstance(plan, WindowPlan) else plan.rerotate or plan.queries
    rotary = Rotary(cast(Any, decoder.text).rotary_emb) if needs_rotation else None
    layers, sliding = plan.geometry.layers, plan.geometry.sliding

    def make() -> list[EvictingLayer]:
        if isinstance(plan, ScorePlan):
            bounds = sliding or (None,) * layers
            return [ScoreLayer(plan, layer, pipeline, rotary, window) for layer, window in enumerate(bounds)]
        return [WindowLayer(plan, layer, rotary, contiguous) for layer in range(layers)]

    return make


_UNDERSTOOD = frozenset(
    ("scaling", "position_ids", "sliding_window", "is_causal", "use_cache", "cache_position", "output_attentions",
     "output_hidden_states", "return_dict", "mm_token_type_ids", "token_type_ids", "output_router_logits")
)  # fmt: skip
"""What attention is called with that a layer knows already, or that changes nothing."""


def _asking_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **kw: Any
) -> Any:
    layer: EvictingLayer | None = getattr(key, TAG, None)
    if layer is None:
        if attention_mask is not None and attention_mask.shape == NO_MASK and key.shape[2] > 1:
            raise ModelError(
                f"{type(module).__name__} was given no cache that could say what a token may see; KV eviction serves"
                " layers that hand their keys to the cache"
            )
        return cast(Any, module)._headwise_attention(module, query, key, value, attention_mask, **kw)
    if kw.pop("dropout", 0.0):
        raise ModelError(
            "attention_dropout is not applied where KV entries are evicted; set the config's attention_dropout to 0 or"
            " call model.eval()"
        )
    strange = [name for name, given in kw.items() if given is not None and name not in _UNDERSTOOD]
    if strange:
        raise ModelError(
            f"{type(module).__name__} computes attention with {strange[0]}, which caches that evict do not know; its"
            " family is not served"
        )
    out = layer.answer(
        New(
            query=query,
            key=key,
            value=value,
            scaling=float(kw.get("scaling") or query.shape[-1] ** -0.5),
            positions=kw.get("position_ids"),
        )
    )
    return out.transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(INTERFACE, _asking_attention)


def _function_of(module: Any) -> Callable[..., Any]:
    """The attention function a module would have called, under the config it expects to see."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    own = module.config

    def attend(module: Any, *args: Any, **kw: Any) -> Any:
        function = ALL_ATTENTION_FUNCTIONS.get_interface(own._attn_implementation, eager)
        asking, module.config = module.config, own
        try:
            return function(module, *args, **kw)
        finally:
            module.config = asking

    return attend


def _evicts(cache: Any) -> TypeGuard[EvictingCache]:
    return bool(getattr(cache, "layers", None)) and isinstance(cache.layers[0], EvictingLayer)


def _wanted(kwargs: dict[str, Any], config: Any, name: str) -> bool:
    """Whether an output is asked for, in the call or else by the config."""
    given = kwargs.get(name)
    return bool(getattr(config, name, False) if given is None else given)


def _converted(cache: Any, layers: Layers) -> Any:
    """``cache`` if it evicts already; an empty dynamic one is given layers that do, and stays the caller's object."""
    if cache is None:
        return EvictingCache(layers())
    if _evicts(cache):
        return cache
    if type(cache) is not DynamicCache:
        raise ModelError(
            f"a {type(cache).__name__} cannot evict; generate with the default dynamic cache, or pass"
            " headwise.cache(model, recipe)"
        )
    if cache.get_seq_length():
        raise ModelError(
            f"this cache holds {cache.get_seq_length()} tokens that were read before the recipe was attached; start"
            " with an empty one"
        )
    cache.layers = layers()
    cache.layer_class_to_replicate = None
    return cache
