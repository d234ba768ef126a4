"""Attention rows of a few query tokens, without ``output_attentions``: SDPA or flash attention stays on.

A probe remembers the queries and keys of one attention module's last call, and computes softmax rows from them only
when asked: O(heads x rows x keys) memory, never length x length. It is installed on the module alone: the module gets
a copy of its config that names our attention function, which remembers and then calls the function the model had.
The model's own config is never touched, so masks are still made for the original function, the vision tower keeps
its attention, and taking the probe off again is one assignment.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

INTERFACE = "headwise_probe"
_SLOT = "_headwise_probe"  # attribute of a probed attention module

Call = tuple[Tensor, Tensor, Tensor | None, float]
"""What an attention function was called with: queries, keys, mask and scaling."""


class Probe:
    """Queries and keys of one attention module's last forward; ``rows`` turns them into attention.

    ``causal``: whether a query sees no later key where the module was given no mask that says so. ``call``: what the
    module's attention was last called with; to show the probe an earlier forward again, its call is put there.
    """

    def __init__(self, module: nn.Module, causal: bool = True) -> None:
        self._own_config: Any = module.config
        self._causal = causal
        self.call: Call | None = None
        self._function = _function_of(module)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kw: Any
    ) -> Any:
        """Remember the call and let the original function do it, under the config it expects to see."""
        self.call = (query, key, mask, float(kw.get("scaling") or query.shape[-1] ** -0.5))
        probing, module.config = module.config, self._own_config
        try:
            return self._function(module, query, key, value, mask, **kw)
        finally:
            module.config = probing

    def forget(self) -> None:
        """Let go of the remembered tensors."""
        self.call = None

    def rows(self, batch: Tensor, queries: Tensor, columns: Tensor) -> Tensor:
        """Softmax attention over all keys, float32 (b, heads, q, v), cut to some columns.

        ``batch`` (b,): rows of the batch. ``queries`` (b, q): positions within the last forward, negative where
        unused (their attention is zero). ``columns`` (b, v): positions within the last forward.
        """
        if self.call is None:
            raise RuntimeError("a probe was read before its layer ran")
        query, key, mask, scaling = self.call
        used = queries >= 0
        index = queries.clamp_min(0)
        values = logits(_asking(_pick(query, batch), index), _pick(key, batch)) * scaling
        past = key.shape[2] - query.shape[2]
        values = _masked(values, mask, batch, index, past) if self._causal or mask is not None else values
        attention = values.softmax(dim=-1).masked_fill(~used[:, None, :, None], 0.0)
        wanted = (columns + past)[:, None, None, :].expand(*attention.shape[:3], -1)
        return attention.gather(-1, wanted)

    def keys(self) -> Tensor:
        """The keys of the last forward's own tokens, rotary positions included: (b, kv_heads, n, head_dim)."""
        if self.call is None:
            raise RuntimeError("a probe was read before its layer ran")
        query, key, _, _ = self.call
        return key[:, :, key.shape[2] - query.shape[2] :]


@contextmanager
def probing(module: nn.Module, causal: bool = True) -> Iterator[Probe]:
    """Probe one attention module; on the way out it has the very config object it had before."""
    probe = Probe(module, causal)
    own = module.config
    config = copy.copy(own)
    cast(Any, config)._attn_implementation_internal = INTERFACE
    setattr(module, _SLOT, probe)
    module.config = config
    try:
        yield probe
    finally:
        module.config = own
        delattr(module, _SLOT)


def probe_of(module: nn.Module) -> Probe | None:
    """The probe on an attention module, where there is one."""
    return getattr(module, _SLOT, None)


def _probing_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **kw: Any
) -> Any:
    return getattr(module, _SLOT).attend(module, query, key, value, mask, **kw)


ALL_ATTENTION_FUNCTIONS.register(INTERFACE, _probing_attention)


def _function_of(module: nn.Module) -> Callable[..., Any]:
    """The attention function a module would have called; eager ones live in their modeling file."""
    modeling = sys.modules[type(module).__module__]
    eager = getattr(modeling, "eager_attention_forward", None)
    return cast(
        Callable[..., Any],
        ALL_ATTENTION_FUNCTIONS.get_interface(cast(Any, module.config)._attn_implementation, eager),
    )


def _pick(states: Tensor, batch: Tensor) -> Tensor:
    return states if batch.numel() == states.shape[0] else states[batch]


def _asking(query: Tensor, index: Tensor) -> Tensor:
    """Queries (b, h, Q, d) at ``index`` (b, q): (b, h, q, d)."""
    return query.gather(2, index[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[3]))


def logits(query: Tensor, key: Tensor) -> Tensor:
    """Products of queries (b, h, q, d) with keys (b, h_kv, K, d): float32 (b, h, q, K).

    Grouped queries meet their shared key head directly; keys are never repeated.
    """
    b, h, q, d = query.shape
    kv_heads = key.shape[1]
    grouped = query.float().reshape(b, kv_heads, (h // kv_heads) * q, d)
    return (grouped @ key.float().transpose(-1, -2)).view(b, h, q, key.shape[2])


def _masked(values: Tensor, mask: Tensor | None, batch: Tensor, index: Tensor, past: int) -> Tensor:
    """Logits (b, h, q, K) with what the queries cannot see at -inf, whatever kind of mask the function was given.

    Under a cache that evicts, the keys are those of this forward, and the mask's last columns are theirs.
    """
    keys = values.shape[-1]
    if mask is not None and mask.ndim == 4:
        rows = mask[batch] if mask.shape[0] > 1 else mask.expand(batch.numel(), -1, -1, -1)
        rows = rows[..., -keys:].gather(2, index[:, None, :, None].expand(-1, rows.shape[1], -1, keys))
        return values.masked_fill(~rows, float("-inf")) if rows.dtype == torch.bool else values + rows.float()
    hidden = torch.arange(keys, device=values.device) > (index + past).unsqueeze(-1)
    if mask is not None:  # flash attention: one flag per key
        hidden = hidden | ~mask[batch, None, :keys].bool()
    return values.masked_fill(hidden.unsqueeze(1), float("-inf"))
