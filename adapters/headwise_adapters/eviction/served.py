"""Checks, before anything is computed, whether a model's attention is what caches that evict compute in its place.

One attention module of each kind is run on a few random states at two sets of positions. Its arguments to the attention
function show its heads, its rotation of keys, and anything beyond plain attention, such as soft caps.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from headwise.errors import ModelError
from headwise.geometry import Geometry
from headwise_adapters import patching
from headwise_adapters.attention.rotary import Layout, Rotary
from headwise_adapters.parts import TextParts
from headwise_adapters.patching import Kwargs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

UNDERSTOOD = frozenset(
    ("attention_mask", "dropout",
     "scaling", "position_ids", "sliding_window", "is_causal", "use_cache", "cache_position", "output_attentions",
     "output_hidden_states", "return_dict", "mm_token_type_ids", "token_type_ids", "output_router_logits",
     "labels", "shift_labels", "num_items_in_batch", "ignore_index")
)  # fmt: skip
"""Arguments of attention functions that a cache layer knows already, or that change nothing."""

_KINDS = ("full_attention", "sliding_attention")
PACKED = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "cu_seqlens", "seq_idx", "block_table")
"""Arguments that say where the texts of a row begin."""

_STEPS = (1, 5, 17, 300)  # how much later the same states stand in the second row
_TOLERANCE = 0.03  # of a key's length: far above the rounding of 16 bit, far below another rotation

_lock = threading.Lock()
_known: WeakKeyDictionary[nn.Module, dict[bool, list[Layout | None]]] = WeakKeyDictionary()
_LAYOUTS: tuple[Layout, ...] = ("halves", "neighbours", "unturned")

_Candidates = Mapping[Layout, Rotary]
"""What may move the keys of one kind of layer; empty where nothing has to."""


def check(decoder: TextParts, geometry: Geometry, *, moves: bool) -> list[Rotary | None]:
    """What moves the keys of each layer where a plan ``moves`` them, else None for each.

    Raises ModelError where a decoder's attention is not what caches that evict compute, or turns queries and keys by
    their positions in a way that is not known. A decoder whose layers passed once is not checked again.
    """
    kinds = getattr(decoder.text.config, "layer_types", None) or [_KINDS[0]] * geometry.layers
    moved = [kind for kind in _KINDS if kind in kinds] if moves else []
    turns = {kind: {layout: Rotary(decoder.text, kind, layout) for layout in _LAYOUTS} for kind in moved}
    with _lock:
        known = _known.setdefault(decoder.text, {})
        layouts = known.get(moves)
        if layouts is None:
            layouts = _layouts(decoder, geometry, kinds, turns)
            if not any(_absent(decoder.attention_of(layer)) for layer in range(geometry.layers)):
                known[moves] = layouts
    return [None if layout is None else turns[kinds[layer]][layout] for layer, layout in enumerate(layouts)]


def _layouts(
    decoder: TextParts, geometry: Geometry, kinds: Sequence[str], turns: Mapping[str, _Candidates]
) -> list[Layout | None]:
    """How each layer pairs the numbers that it turns, None where nothing has to move its keys.

    Raises ModelError as :func:`check`, and for layers without weights whose keys have to be moved.
    """
    seen: dict[str, Layout | None] = {}
    found: list[Layout | None] = []
    for layer in range(geometry.layers):
        module = _attention_module(decoder, layer, kinds[layer])
        alike = f"{type(module)} {kinds[layer]} {_settings(module)}"
        if alike not in seen and not _absent(module):
            seen[alike] = _check_layer(decoder, layer, kinds[layer], geometry, turns.get(kinds[layer], {}))
        elif alike not in seen and turns:
            raise ModelError(
                f"{type(module).__name__} has no weights yet (device meta), and how it turns keys is seen by running"
                " it; load them first, or use positions=original, without rerotate"
            )
        found.append(seen.get(alike))
    return found


def _attention_module(decoder: TextParts, layer: int, kind: str) -> nn.Module:
    """The attention module of a layer; raises ModelError where it has none, or is of a ``kind`` that is not served."""
    if kind not in _KINDS:
        raise ModelError(f"layer {layer} of this model is of type {kind!r}, which KV eviction does not serve")
    if not hasattr(decoder.layer(layer), decoder.attention):
        raise ModelError(
            f"layer {layer} of this model, a {type(decoder.layer(layer)).__name__}, has no {decoder.attention}"
            " from which KV entries could be evicted"
        )
    return decoder.attention_of(layer)


def strange(module: nn.Module, kwargs: Kwargs, then: str = "its family is not served") -> None:
    """Raise ModelError for an argument of attention that no cache layer knows; ``then`` ends the sentence."""
    for name, given in kwargs.items():
        if given is not None and name not in UNDERSTOOD:
            raise ModelError(
                f"{type(module).__name__} computes attention with {name}, which caches that evict do not know; {then}"
            )


def causal(text: PreTrainedModel, kwargs: Kwargs) -> None:
    """Raise ModelError where an argument of the call, or else the config, lets tokens see those behind them."""
    given = kwargs.get("is_causal")
    if (getattr(text.config, "is_causal", None) if given is None else given) is False:
        raise ModelError(
            "attention in both directions (is_causal=False) is not served: visual tokens are pruned and KV entries"
            " evicted where a text is read from left to right"
        )


def covering(mask: object, tokens: int) -> None:
    """Raise ModelError where a mask (b, n) does not have one flag for each of the tokens, cached ones included."""
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1] != tokens:
        raise ModelError(
            f"the attention mask has {mask.shape[1]} columns for {tokens} tokens, those in the cache included; give one"
            " for each of them"
        )


def steps_of_one_text(kwargs: Kwargs, real: Tensor | None, where: str) -> Tensor | None:
    """How much position ids rise from one token to the next, int64 (b|1, n - 1), and 1 beside padding.

    None where the call gives no position ids, or none that count the text: those with four axes count it along the
    first, those with three along none, and then the stock model takes a row for one text. ``real`` bool (b, n): which
    tokens are no padding, None where all are. Raises ModelError for packed texts, which have several texts in a row and
    are not served ``where`` says.
    """
    for name in PACKED:
        if kwargs.get(name) is not None:
            raise ModelError(f"packed texts ({name}) are not served {where}; give each text a row of its own")
    ids = kwargs.get("position_ids")
    if isinstance(ids, Tensor) and ids.ndim == 3 and len(ids) == 4:
        ids = ids[0]
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return None
    steps = ids.diff(dim=1)
    if real is not None:
        steps = torch.where((real[:, 1:] & real[:, :-1]).to(steps.device), steps, 1)
    if bool((steps < 1).any()):
        raise ModelError(
            f"position_ids start again within a row, as in packed texts, which are not served {where}; give each text a"
            " row of its own"
        )
    return steps


def call(text: PreTrainedModel, kwargs: Kwargs, real: Tensor | None, *, counted: bool) -> None:
    """Raise ModelError for a call of the decoder that lays out its tokens in a way KV eviction does not follow.

    ``real`` bool (b, n): which of the new tokens are no padding, None where all are. ``counted``: position ids have to
    count the tokens, because no cache follows or positions are moved.
    """
    causal(text, kwargs)
    if str(text.config._attn_implementation).startswith("paged|"):
        raise ModelError(
            "continuous batching (generate_batch, paged attention) keeps its own cache, in which nothing is evicted;"
            " use generate"
        )
    steps = steps_of_one_text(kwargs, real, "by KV eviction")
    if counted and steps is not None and bool((steps > 1).any()):
        raise ModelError(
            "position_ids skip numbers, and here they have to count the tokens: this strategy moves positions, or there"
            " is no cache (use_cache=False); give position_ids that count the tokens, or none"
        )


def _check_layer(decoder: TextParts, layer: int, kind: str, geometry: Geometry, turns: _Candidates) -> Layout | None:
    """Which of ``turns`` one layer makes by its positions, None where there are none to choose from.

    Raises ModelError where its attention is not what its configuration says, or not what caches compute.
    """
    module = decoder.attention_of(layer)
    name = type(module).__name__
    if any(type(weight).__name__ == "DTensor" for weight in module.parameters()):
        raise ModelError(f"the weights of {name} are sharded already; attach first, and then shard the model (FSDP)")
    (query, key, value), kwargs = _asked(decoder, module, kind)
    strange(module, kwargs)
    own = geometry.sliding[layer] if geometry.sliding else None
    if "sliding_window" in kwargs and kwargs["sliding_window"] != own:
        raise ModelError(
            f"{name} of layer {layer} has a window of {kwargs['sliding_window']} tokens, and the model's configuration"
            f" says {own}; its family is not served"
        )
    wanted = (geometry.kv_heads, geometry.head_dim)
    for states in (key, value):
        if (states.shape[1], states.shape[3]) != wanted or query.shape[1] != geometry.heads:
            raise ModelError(
                f"{name} has keys or values of {states.shape[1]} heads by {states.shape[3]}, and the model's"
                f" configuration says {wanted[0]} by {wanted[1]}; its family is not served"
            )
    if not turns:
        return None
    for layout, rotary in turns.items():
        if _turns(rotary, query) and _turns(rotary, key):
            return layout
    raise ModelError(
        f"{name} of layer {layer} does not turn queries and keys by their positions as this strategy would have to;"
        " use a strategy that leaves positions as they are (positions=original, without rerotate)"
    )


def _turns(rotary: Rotary, states: Tensor) -> bool:
    """Whether the first row of states (2, heads, n, d), turned by ``_STEPS``, becomes the second."""
    early, late = states.float()
    moved = rotary.rotate(early, torch.tensor(_STEPS, device=states.device))
    return not bool(((moved - late).norm(dim=-1) > _TOLERANCE * late.norm(dim=-1)).any())


def _asked(decoder: TextParts, module: nn.Module, kind: str) -> tuple[tuple[Tensor, Tensor, Tensor], Kwargs]:
    """Queries, keys and values (2, heads, n, d) of random states at two places, and what else attention is given.

    Raises ModelError where the module cannot be run so, or does not call an attention function exactly once.
    """
    found: list[tuple[tuple[Tensor, Tensor, Tensor], Kwargs]] = []
    mine = object()

    def attend(function: patching.Call, args: patching.Args, kwargs: Kwargs) -> object:
        if not patching.recall(mine):  # another thread's forward
            return function(*args, **kwargs)
        _, query, key, value, *_ = args
        found.append(((query, key, value), kwargs))
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1]), None

    try:
        with torch.no_grad(), patching.memory(), patching.knowing(mine, True), patching.attending(module, attend):
            hidden, ids = _states(decoder, module)
            rotations = _rotations(decoder, hidden, ids, kind)
            module(hidden_states=hidden, position_embeddings=rotations, attention_mask=None)
    except (TypeError, AttributeError, LookupError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{type(module).__name__} could not be asked about its attention ({type(error).__name__}: {error}); its"
            " family is not served"
        ) from error
    if len(found) == 1:
        return found[0]
    times = f"computes attention {len(found)} times, and caches that evict answer once"
    fault = times if found else "does not call an attention function of transformers"
    raise ModelError(f"{type(module).__name__} {fault}; its family is not served")


def _states(decoder: TextParts, module: nn.Module) -> tuple[Tensor, Tensor]:
    """The same random hidden states (2, n, hidden) twice, and their positions (2, n)."""
    text = decoder.text
    found = next(module.parameters(), None)  # quantised layers have none
    place = text.device if found is None else found.device
    place = torch.device("cpu") if place.type == "meta" else place
    steps = torch.tensor(_STEPS, device=place)
    ids = torch.stack([torch.arange(len(_STEPS), device=place), torch.arange(len(_STEPS), device=place) + steps])
    drawn = torch.Generator().manual_seed(0)
    some = torch.randn(1, len(_STEPS), text.config.hidden_size, generator=drawn, device="cpu", dtype=torch.float32)
    return some.to(place, text.dtype).expand(2, -1, -1).contiguous(), ids


def _rotations(decoder: TextParts, hidden: Tensor, ids: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Cosines and sines (b, n, d) at the positions ``ids`` (b, n) in layers of one kind."""
    module, rope = decoder.text.rotary_emb, getattr(decoder.text.config, "rope_parameters", None)
    if isinstance(rope, dict) and rope.get("mrope_section"):
        ids = ids.expand(3, -1, -1)
    if "layer_type" in inspect.signature(module.forward).parameters and isinstance(rope, dict) and kind in rope:
        cos, sin = module(hidden, ids, kind)
    else:
        cos, sin = module(hidden, ids)
    return cos, sin


def _settings(module: nn.Module) -> list[tuple[str, str]]:
    """The plain attributes of a module, by which kinds of layers differ."""
    plain = {n: v for n, v in vars(module).items() if v is None or isinstance(v, bool | int | float | str)}
    return sorted((n, repr(v)) for n, v in plain.items() if n != "layer_idx")


def _absent(module: nn.Module) -> bool:
    """Whether the weights are nowhere, so that nothing can be computed at all."""
    return not hasattr(module, "_hf_hook") and any(p.device.type == "meta" for p in module.parameters())
