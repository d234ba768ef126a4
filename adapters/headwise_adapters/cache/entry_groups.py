"""Entries of many KV heads, each with its own number of them, stored without padding.

A *unit* is one KV head of one batch row. Units with equally many entries share one dense tensor; a layer's attention
is one dense product per such group.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from headwise.attention_math import taken


@attrs.define(eq=False)
class EntryGroup:
    """Units ``index`` int64 (m,) with n entries each.

    ``keys``, ``values`` (m, n, d); ``tokens`` int32 (m, n): which token of its row each entry is, -1 for padding;
    ``places`` int32 (m, n): the position id it is to stand at, while keys are held as they came;
    ``accumulated_attention`` float32 (m, r, n).
    ``whole``: the group holds all units in order, so that nothing needs to be picked.
    """

    index: Tensor
    keys: Tensor
    values: Tensor
    tokens: Tensor
    places: Tensor
    accumulated_attention: Tensor | None
    whole: bool

    @property
    def where(self) -> Tensor:
        """``index``, to pick by: one made in inference mode may not be remembered for a backward outside of it."""
        stale = self.index.is_inference() and not torch.is_inference_mode_enabled()
        return self.index.clone() if stale else self.index

    def of(self, states: Tensor) -> Tensor:
        """This group's units of ``states`` (units, ...)."""
        return states if self.whole else states[self.where]

    def tensors(self) -> list[Tensor]:
        """Everything beside keys and values."""
        return [
            self.index,
            self.tokens,
            self.places,
            *([] if self.accumulated_attention is None else [self.accumulated_attention]),
        ]


def empty(units: int, like: Tensor, shared: int, accumulates: bool) -> EntryGroup:
    """All units, none with an entry; ``like`` (..., d) gives type, device and head size."""
    nothing = torch.empty(units, 0, dtype=torch.int32, device=like.device)
    accumulated = torch.zeros(units, shared, 0, device=like.device, dtype=torch.float32) if accumulates else None
    states = like.new_empty(units, 0, like.shape[-1])
    return EntryGroup(
        torch.arange(units, device=like.device), states, states.clone(), nothing, nothing.clone(), accumulated, True
    )


def rectangle(groups: Sequence[EntryGroup], units: int, field: str, filler: float) -> Tensor:
    """One field of all groups as (units, longest, ...), shorter units filled up at the end."""
    if len(groups) == 1 and groups[0].whole:
        whole: Tensor = getattr(groups[0], field)
        return whole
    parts = [getattr(found, field) for found in groups]
    dim = 2 if field == "accumulated_attention" else 1
    longest = max(part.shape[dim] for part in parts)
    shape = [units, *parts[0].shape[1:]]
    shape[dim] = longest
    full = parts[0].new_full(shape, filler)
    for found, part in zip(groups, parts, strict=True):
        full.narrow(dim, 0, part.shape[dim])[found.where] = part
    filled: Tensor = full
    return filled


def regrouped(full: EntryGroup, keep: Tensor) -> list[EntryGroup]:
    """Groups of the entries that stay, in new tensors: ``full`` holds all units, ``keep`` is bool (units, longest)."""
    order = (~keep).to(torch.uint8).argsort(dim=-1, stable=True)  # what stays first, in its order
    counts = keep.sum(dim=-1)
    groups = []
    for count in torch.unique(counts).tolist():
        index = (counts == count).nonzero().squeeze(-1)
        groups.append(_taken(full, index, order[index, :count]))
    return groups


def _taken(full: EntryGroup, index: Tensor, columns: Tensor) -> EntryGroup:
    whole = len(index) == len(full.index)

    def pick(states: Tensor, dim: int = 1) -> Tensor:
        return taken(states if whole else states[index], columns, dim)

    return EntryGroup(
        index=index,
        keys=pick(full.keys),
        values=pick(full.values),
        tokens=pick(full.tokens),
        places=pick(full.places),
        accumulated_attention=None if full.accumulated_attention is None else pick(full.accumulated_attention, 2),
        whole=whole,
    )
