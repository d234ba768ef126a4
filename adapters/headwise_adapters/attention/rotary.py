"""Turning keys and queries that carry rotary embeddings by further positions. Partial rotary included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headwise.autocast import without_autocast
from headwise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AT_ONCE = 32  # matrices of following distances that are made together: decoding asks for one after the other
_REMEMBERED = 16  # such bundles: one for each different room of a plan, and a few more
_CHANGING = ("dynamic", "longrope")  # their frequencies depend on the length of the text


class Rotary:
    """Rotations of one language model: the first ``2 * len(frequencies)`` numbers of a head, half against half.

    The model's frequencies are read at every call, so a model that was converted or changed meanwhile is followed.
    Raises ModelError for rotations that change with the length of the text, or that differ between layers.
    """

    def __init__(self, text: PreTrainedModel) -> None:
        """Read the rotations of a language model; raises ModelError as the class says."""
        module = text.rotary_emb
        kind = getattr(module, "rope_type", "default")
        if kind in _CHANGING:
            raise ModelError(
                f"rotary embeddings of type {kind!r} change with the length of the text and cannot be moved;"
                " use positions=original, without rerotate"
            )
        if not isinstance(getattr(module, "inv_freq", None), Tensor):
            raise ModelError(
                f"{type(module).__name__} has several rotations, one for each type of layer, and keys cannot be moved"
                " by them; use positions=original, without rerotate"
            )
        self._text, self._known = text, module.inv_freq
        self._turns: dict[tuple[int, int, torch.device], Sequence[Tensor]] = {}

    def __deepcopy__(self, _: object) -> Rotary:
        """Copies of a cache share the model's rotations."""
        return self

    def by(self, states: Tensor, distance: int) -> Tensor:
        """All ``states`` (..., d) turned by one distance, in tokens; a single matrix product, as decoding needs it."""
        start = distance // _AT_ONCE * _AT_ONCE
        key, frequencies = (start, states.shape[-1], states.device), self._text.rotary_emb.inv_freq
        if key not in self._turns or frequencies is not self._known:
            if len(self._turns) >= _REMEMBERED or frequencies is not self._known:
                self._turns.clear()
            self._known = frequencies
            unit = torch.eye(states.shape[-1], device=states.device, dtype=torch.float32).expand(_AT_ONCE, -1, -1)
            following = torch.arange(start, start + _AT_ONCE, device=states.device).unsqueeze(1)
            self._turns[key] = self.rotate(unit, following).unbind(0)
        with without_autocast():
            return (states.float() @ self._turns[key][distance - start]).to(states.dtype)

    def rotate(self, states: Tensor, distance: Tensor) -> Tensor:
        """``states`` (..., d) turned by ``distance``, integers that broadcast against (...)."""
        return _turned(states, *self._table(distance))

    def _table(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines in float32; angles in float64, because a distance may be a million tokens."""
        frequencies = self._text.rotary_emb.inv_freq.to(device=distance.device, dtype=torch.float64)
        angles = distance.to(torch.float64).unsqueeze(-1) * frequencies
        return angles.cos().float(), angles.sin().float()


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second, rest = states[..., :half], states[..., half : 2 * half], states[..., 2 * half :]
    first, second = first.float(), second.float()
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(states.dtype), rest], dim=-1)
