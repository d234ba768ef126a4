"""Attention masks of a layer that holds fewer tokens than the model thinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from headwise.attention_math import taken
from headwise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEVER = torch.iinfo(torch.int64).max
"""The position of no token."""


@attrs.frozen(eq=False)
class Tokens:
    """Tokens a layer holds: ``index`` int64 (b, n), ascending positions in the full sequence, and which are real.

    Rows of a batch may keep different numbers of tokens; the shorter ones are filled up with padding and dropped
    tokens, which are not ``real`` bool (b, n): no query may see them. ``lost`` int64 (b, m): positions of the visual
    tokens that were dropped on the way here, ``NEVER`` where there is none.
    """

    index: Tensor
    real: Tensor
    lost: Tensor

    @classmethod
    def everything(cls, batch: int, length: int, device: torch.device) -> Tokens:
        """All of the first ``length`` tokens."""
        index = torch.arange(length, device=device).expand(batch, -1)
        return cls(index, torch.ones_like(index, dtype=torch.bool), index.new_empty(batch, 0))

    @property
    def dropped_before(self) -> Tensor:
        """How many visual tokens were dropped on the way here, int64 (b, 1)."""
        return (self.lost < NEVER).sum(dim=1, keepdim=True)

    @property
    def missing(self) -> Tensor:
        """How many tokens were dropped in front of each, int64 (b, n)."""
        return torch.searchsorted(self.lost.sort(dim=1).values, self.index.contiguous())

    def last(self, count: int) -> Tokens:
        """The last ``count``, 1 or more, of those of each row."""
        return Tokens(self.index[:, -count:], self.real[:, -count:], self.lost)

    def complete(self, length: int) -> bool:
        """Whether these are the first ``length`` tokens of the text, none of them missing."""
        return self.index.shape[1] == length and bool(self.real.all())

    def behind(self, past: int) -> Tokens:
        """The same tokens where ``past`` others came before them."""
        return Tokens(self.index + past, self.real, torch.where(self.lost < NEVER, self.lost + past, NEVER))

    def then(self, new: Tokens) -> Tokens:
        """These tokens followed by new ones."""
        ours, theirs = attrs.astuple(self, recurse=False), attrs.astuple(new, recurse=False)
        return Tokens(*(torch.cat(pair, dim=1) for pair in zip(ours, theirs, strict=True)))

    def before(self, length: int) -> Tokens:
        """Those among the first ``length`` tokens of the text; rows that have fewer of them are filled up."""
        there = self.index < length
        width = int(there.sum(dim=1).max())
        lost = self.lost.masked_fill(self.lost >= length, NEVER)
        return Tokens(self.index[:, :width].clamp_max(length - 1), (self.real & there)[:, :width], lost)

    def picked(self, rows: Tensor) -> Tokens:
        """The tokens of some rows, int64 (k,), in their order."""
        rows = rows.to(self.index.device)
        return Tokens(self.index[rows], self.real[rows], self.lost[rows])


def flagged(text: PreTrainedModel) -> bool:
    """Whether the attention of a decoder takes flags (b, K), as flash attention does, and not a mask (b, h, Q, K).

    Raises ModelError for attention with masks of another kind, or without any.
    """
    name, make = text.config._attn_implementation, ALL_MASK_ATTENTION_FUNCTIONS
    for known, flags in (("sdpa", False), ("eager", False), ("flash_attention_2", True)):
        if name in make and make[name] is make[known]:
            return flags
    raise ModelError(
        f"the masks of attention implementation {name!r} cannot be cut to the visual tokens that are left; use"
        " set_attn_implementation with 'sdpa', 'eager' or 'flash_attention_2'"
    )


def sliced(mask: Tensor | None, queries: Tensor, keys: Tokens, *, past: int, flags: bool) -> Tensor | None:
    """The mask of a layer with fewer tokens, from the mask of the full sequence.

    ``mask`` is what transformers made: None, (b|1, h|1, Q, K) bool or additive, or (b, K) ``flags``.
    ``queries`` (b, q) are positions within this forward, which ``past`` tokens preceded; ``keys`` are in full-sequence
    positions. A mask may tell of the last keys only, as those of a sliding window do, and hides all others.
    None stays None where a causal kernel needs no mask.
    """
    all_real = bool(keys.real.all())
    if flags or (mask is not None and mask.ndim == 2):
        return _flags(mask, keys, all_real)
    if mask is None:
        plain = queries.shape[1] == 1 or queries.shape[1] == keys.index.shape[1]
        return None if plain and all_real else _causal(queries + past, keys)
    rows = taken(mask.expand(len(queries), -1, -1, -1), queries, 2)
    columns = keys.index - (past + mask.shape[2] - mask.shape[3])
    small = taken(rows, columns.clamp_min(0), 3)
    hidden = ~keys.real | (columns < 0)
    if not bool(hidden.any()):
        return small
    blocked = False if small.dtype == torch.bool else torch.finfo(small.dtype).min
    return small.masked_fill(hidden[:, None, None, :], blocked)


def renumbered(flags: Tensor | None, queries: Tokens, keys: Tokens, window: int, dtype: torch.dtype | None) -> Tensor:
    """The mask (b, 1, q, n) of a layer whose sliding window counts its own tokens, and none that were dropped.

    ``flags`` (b, K) tell padding; both are in full-sequence positions. Bool, or to be added where there is a ``dtype``.
    """
    asking, there = queries.index.unsqueeze(2), keys.index.unsqueeze(1)
    back = (queries.index - queries.missing).unsqueeze(2) - (keys.index - keys.missing).unsqueeze(1)
    real = keys.real if flags is None else keys.real & flags.bool().gather(1, keys.index)
    visible = (there <= asking) & (back < window) & real.unsqueeze(1)
    visible = (visible | (there == asking)).unsqueeze(1)  # no query can do without a key, and be it padding
    if dtype is None:
        return visible
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, torch.finfo(dtype).min)


def _flags(mask: Tensor | None, keys: Tokens, all_real: bool) -> Tensor | None:
    if mask is None:
        return None if all_real else keys.real
    return mask.gather(1, keys.index) * keys.real.to(mask.dtype)


def real_flags(mask: Tensor, new: int) -> Tensor:
    """Which of the ``new`` last tokens are no padding, bool (b, new), from flags (b, all tokens)."""
    return mask[:, -new:].bool()


def _causal(queries: Tensor, keys: Tokens) -> Tensor:
    """Bool (b, 1, q, n), True where a key may be seen: real, and not after the query."""
    visible = keys.index[:, None, :] <= queries[:, :, None]
    return (visible & keys.real[:, None, :]).unsqueeze(1)
