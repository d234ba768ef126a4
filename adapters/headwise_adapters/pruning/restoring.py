"""Outputs of a forward that dropped tokens, at the length that the caller put in: zeros where nothing was computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise_adapters.cache.masks import Tokens
from headwise_adapters.pruning.forward import Forward

if TYPE_CHECKING:
    from transformers.utils import ModelOutput


def restore(forward: Forward, output: ModelOutput, layers: int) -> None:
    """Put what a language model gives back to where its tokens stood, so that the caller's positions still hold.

    ``output`` has a ``last_hidden_state``, and ``hidden_states`` and ``attentions`` where they were asked for.
    """
    if not forward.shown:
        return
    last = output.last_hidden_state
    output.last_hidden_state = _of_layer(forward, layers - 1, last)
    if output.get("hidden_states"):
        first = layers - len(output.hidden_states)  # -1: what entered layer 0 comes first
        output.hidden_states = tuple(
            output.last_hidden_state if found is last else _of_layer(forward, layer, found)
            for layer, found in enumerate(output.hidden_states, first)
        )
    if output.get("attentions"):  # none where attention makes no maps
        output.attentions = tuple(_map(forward, layer, found) for layer, found in enumerate(output.attentions))


def _of_layer(forward: Forward, layer: int, states: Tensor | None) -> Tensor | None:
    """What came out of a layer, (b, n, d), or entered the first one (-1): (b, length, d). None where not asked for."""
    if states is None:
        return None
    if layer < 0:
        return states if forward.entering is None else forward.entering
    tokens, *_ = forward.shown.get(layer, (None,))
    return states if tokens is None else _spread(states, tokens, forward.length, dim=1)


def _map(forward: Forward, layer: int, found: Tensor) -> Tensor:
    """Attention (b, h, q, k) of a layer: (b, h, length, past + length), or what a cache would show of these columns."""
    if layer not in forward.shown:
        return found
    tokens, keys, wide = forward.shown[layer]
    if tokens is not None:
        found = _spread(found, tokens, forward.length, dim=2)
    return _spread(found, keys, forward.past + forward.length, dim=3)[..., -wide:]


def _spread(found: Tensor, tokens: Tokens, length: int, dim: int) -> Tensor:
    """``found`` with its tokens, along ``dim``, where they stand among ``length``; 0 for all others."""
    shape = [found.shape[0]] + [1] * (found.ndim - 1)
    shape[dim] = found.shape[dim]
    real, index = (part.to(found.device).reshape(shape) for part in (tokens.real, tokens.index))
    full = found.new_zeros([*found.shape[:dim], length, *found.shape[dim + 1 :]])
    return full.scatter(dim, index.expand_as(found), torch.where(real, found, 0))
