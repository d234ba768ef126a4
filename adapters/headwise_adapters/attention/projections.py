"""Attention rows from an attention module's own projections: without rotary positions, or before the layer has run.

Both look at the tokens of this forward only: tokens in the cache are left out of the softmax, because their keys carry
positions already, or belong to a layer that has yet to be asked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor, nn

from headwise.attention_math import taken
from headwise.autocast import as_the_model
from headwise.errors import ModelError
from headwise_adapters import patching
from headwise_adapters.attention.probe import logits

if TYPE_CHECKING:  # families served are like Llama in these two
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer


@attrs.frozen(eq=False)
class Asked:
    """Which rows of attention are wanted, all tensors on one device.

    ``batch`` (b,): rows of the batch. ``queries`` (b, q): positions, negative where unused (their attention is zero).
    ``columns`` (b, v): positions of the visual tokens. ``real`` bool (b, n): which of the tokens are not padding.
    ``places`` (b, n): where they stand for the layer's own sliding ``window``, if it has one.
    """

    batch: Tensor
    queries: Tensor
    columns: Tensor
    real: Tensor
    places: Tensor
    window: int | None

    def rows(self, query: Tensor, key: Tensor, scaling: float) -> Tensor:
        """Softmax of queries (b, h, q, d) against keys (b, h_kv, n, d), cut to the columns: float32 (b, h, q, v)."""
        values = logits(query, key) * scaling
        later = torch.arange(key.shape[2], device=key.device) > self.queries.unsqueeze(-1)
        hidden = later | ~self.real.unsqueeze(1)
        if self.window is not None:
            asking = self.places.gather(1, self.queries.clamp_min(0)).unsqueeze(-1)
            hidden |= asking - self.places.unsqueeze(1) >= self.window
        hidden &= (self.queries >= 0).unsqueeze(-1)  # an unused query may see anything: its row is zeroed
        attention = values.masked_fill(hidden.unsqueeze(1), float("-inf")).softmax(dim=-1)
        attention = attention.masked_fill((self.queries < 0)[:, None, :, None], 0.0)
        return taken(attention, self.columns, 3)


class Unrotated:
    """Queries and keys of one attention module in this memory, before rotary positions are applied."""

    def __init__(self, module: LlamaAttention) -> None:
        self._module = module

    def remember(self, name: str, output: Tensor) -> None:
        """Remember what the projection called ``name`` gives, (b, n, heads * head_dim)."""
        patching.remember((self, name), output)

    def rows(self, asked: Asked) -> Tensor:
        """Attention without rotary positions, float32 (b, h, q, v); raises RuntimeError before the layer ran."""
        states = [patching.recall((self, name)) for name in ("q_proj", "k_proj")]
        if states[0] is None:
            raise RuntimeError("a projection was read before its layer ran")
        queries, keys = (found[asked.batch] for found in states)
        query = _heads(self._module, "q_norm", taken(queries, asked.queries.clamp_min(0)))
        return asked.rows(query, _heads(self._module, "k_norm", keys), self._module.scaling)


@contextmanager
def unrotated(module: LlamaAttention) -> Iterator[Unrotated]:
    """Inside, what a module's query and key projections give is remembered.

    Raises ModelError where the module has no such projections of their own.
    """
    found = Unrotated(module)
    with ExitStack() as stack:
        for name in ("q_proj", "k_proj"):
            stack.enter_context(patching.after(_projection(module, name), partial(found.remember, name)))
        yield found


def own_rows(
    layer: LlamaDecoderLayer, module: LlamaAttention, hidden: Tensor, rotary: tuple[Tensor, Tensor], asked: Asked
) -> Tensor:
    """Attention float32 (b, h, q, v) that ``layer`` would compute on ``hidden`` (batch, n, d), if it ran now.

    ``rotary``: cosines and sines (batch or 1, n, head_dim) of the tokens. Queries are made only for the tokens asked.
    Raises ModelError where ``module`` has no projections of their own for queries and keys.
    """
    cos, sin = (table.expand(hidden.shape[0], -1, -1)[asked.batch] for table in rotary)
    turn = sys.modules[type(module).__module__].apply_rotary_pos_emb
    with as_the_model():
        states = layer.input_layernorm(hidden[asked.batch])
        queries = asked.queries.clamp_min(0)  # unused ones are negative
        query = _heads(module, "q_norm", _projection(module, "q_proj")(taken(states, queries)))
        query, _ = turn(query, query[:, :1], taken(cos, queries), taken(sin, queries))
        key = _heads(module, "k_norm", _projection(module, "k_proj")(states))
        _, key = turn(key[:, :1], key, cos, sin)
    return asked.rows(query, key, module.scaling)


def _projection(module: nn.Module, name: str) -> nn.Module:
    """A projection of an attention module; raises ModelError where queries, keys and values are projected at once."""
    projection: nn.Module | None = getattr(module, name, None)
    if projection is None:
        raise ModelError(
            f"{type(module).__name__} has no {name}, and this strategy needs queries and keys of their own;"
            " use a strategy that reads the attention the model computes, such as fastv"
        )
    return projection


def _heads(module: LlamaAttention, norm: str, states: Tensor) -> Tensor:
    """Projected states (b, n, heads * head_dim) as (b, heads, n, head_dim), normalised where the family does so."""
    split = states.view(*states.shape[:2], -1, module.head_dim)
    if hasattr(module, norm):
        split = getattr(module, norm)(split)
    return split.transpose(1, 2)
