"""Attention rows of a few query tokens, without ``output_attentions``: SDPA or flash attention stays on.

A probe remembers the queries and keys of one attention module's last call, and computes softmax rows from them only
when asked: O(heads x rows x keys) memory, never length x length. The attention function is the one that the module has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from headwise.attention_math import taken
from headwise_adapters import patching


class Call(NamedTuple):
    """What an attention function was called with.

    ``query`` (b, heads, n, d), ``key`` (b, kv_heads, past + n, d). ``causal``: whether a query sees no later key where
    there is no mask that says so, nor one beyond a sliding ``window``.
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scaling: float
    causal: bool
    window: int | None = None

    def rows(self, batch: Tensor, queries: Tensor, columns: Tensor) -> Tensor:
        """Softmax attention over all keys, float32 (b, heads, q, v), cut to some columns.

        ``batch`` (b,): rows of the batch. ``queries`` (b, q): positions within the forward, negative where unused
        (their attention is zero). ``columns`` (b, v): positions within the forward.
        """
        query, key, mask, scaling = self[:4]
        used = queries >= 0
        index = queries.clamp_min(0)
        values = logits(taken(_pick(query, batch), index, 2), _pick(key, batch)) * scaling
        past = key.shape[2] - query.shape[2]
        values = _masked(values, self, batch, index) if self.causal or mask is not None else values
        attention = values.softmax(dim=-1).masked_fill(~used[:, None, :, None], 0.0)
        return taken(attention, columns + past, 3)

    def keys(self) -> Tensor:
        """The keys of the forward's own tokens, rotary positions included: (b, kv_heads, n, head_dim)."""
        return self.key[:, :, self.key.shape[2] - self.query.shape[2] :]


class Probe:
    """The last call of one attention module's function in this memory (:func:`headwise_adapters.patching.memory`)."""

    def __init__(self, causal: bool) -> None:
        self._causal = causal

    @property
    def call(self) -> Call | None:
        """The remembered call. Setting it makes the probe read an earlier forward again."""
        call: Call | None = patching.recall(self)
        return call

    @call.setter
    def call(self, call: Call | None) -> None:
        patching.remember(self, call)

    def attend(self, function: patching.Call, args: patching.Args, kwargs: patching.Kwargs) -> object:
        """Remember the call and let the original function do it."""
        _, query, key, _, mask = (*args, kwargs.get("attention_mask"))[:5]
        scaling = float(kwargs.get("scaling") or query.shape[-1] ** -0.5)
        self.call = Call(query, key, mask, scaling, self._causal, kwargs.get("sliding_window"))
        return function(*args, **kwargs)

    def forget(self) -> None:
        """Let go of the remembered tensors."""
        self.call = None

    def rows(self, batch: Tensor, queries: Tensor, columns: Tensor) -> Tensor:
        """:meth:`Call.rows` of the last call; raises RuntimeError before the first."""
        return self._last().rows(batch, queries, columns)

    def keys(self) -> Tensor:
        """:meth:`Call.keys` of the last call; raises RuntimeError before the first."""
        return self._last().keys()

    def _last(self) -> Call:
        """The remembered call; raises RuntimeError where there is none."""
        call = self.call
        if call is None:
            raise RuntimeError("a probe was read before its layer ran")
        return call


@contextmanager
def probing(module: nn.Module, causal: bool = True) -> Iterator[Probe]:
    """Probe one attention module; its calls are remembered where there is a memory."""
    probe = Probe(causal)
    with patching.attending(module, probe.attend):
        yield probe


def probes_of(module: nn.Module) -> list[Probe]:
    """The probes on an attention module."""
    owners = [getattr(wrapper, "__self__", None) for wrapper in patching.attentions_of(module)]
    return [owner for owner in owners if isinstance(owner, Probe)]


def _pick(states: Tensor, batch: Tensor) -> Tensor:
    return states if batch.numel() == states.shape[0] else states[batch]


def logits(query: Tensor, key: Tensor) -> Tensor:
    """Products of queries (b, h, q, d) with keys (b, h_kv, K, d): float32 (b, h, q, K).

    Grouped queries meet their shared key head directly; keys are never repeated.
    """
    b, h, q, d = query.shape
    kv_heads = key.shape[1]
    grouped = query.float().reshape(b, kv_heads, (h // kv_heads) * q, d)
    return (grouped @ key.float().transpose(-1, -2)).view(b, h, q, key.shape[2])


def _masked(values: Tensor, call: Call, batch: Tensor, index: Tensor) -> Tensor:
    """Logits (b, h, q, K) with what the queries cannot see at -inf, whatever kind of mask the function was given.

    Under a cache that evicts, the keys are those of this forward, and the mask's last columns are theirs.
    """
    keys, mask = values.shape[-1], call.mask
    if mask is not None and mask.ndim == 4:
        rows = mask[batch] if mask.shape[0] > 1 else mask.expand(batch.numel(), -1, -1, -1)
        rows = taken(rows[..., -keys:], index, 2)
        return values.masked_fill(~rows, float("-inf")) if rows.dtype == torch.bool else values + rows.float()
    asking = (index + keys - call.query.shape[2]).unsqueeze(-1)
    there = torch.arange(keys, device=values.device)
    hidden = there > asking
    if call.window is not None:  # a mask of numbers says so itself
        hidden = hidden | (asking - there >= call.window)
    if mask is not None:  # flash attention: one flag per key
        hidden = hidden | ~mask[batch, None, :keys].bool()
    return values.masked_fill(hidden.unsqueeze(1), float("-inf"))
