"""Turning keys and queries that carry rotary embeddings by further positions. Partial rotary included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headwise.errors import ModelError

_CHANGING = ("dynamic", "longrope")  # their frequencies depend on the length of the text


class Rotary:
    """Rotations of one model: the first ``2 * len(frequencies)`` numbers of a head, paired half against half."""

    def __init__(self, module: Any) -> None:
        kind = getattr(module, "rope_type", "default")
        if kind in _CHANGING:
            raise ModelError(
                f"rotary embeddings of type {kind!r} change with the length of the text and cannot be moved;"
                " use positions=original, without rerotate"
            )
        self._module = module
        self._last: tuple[int, Tensor, Tensor] | None = None

    def __deepcopy__(self, _: object) -> Rotary:
        """Copies of a cache share the model's rotations."""
        return self

    def by(self, states: Tensor, distance: int) -> Tensor:
        """All ``states`` (..., d) turned by one distance; the last distance's table is remembered."""
        if self._last is None or self._last[0] != distance or self._last[1].device != states.device:
            cos, sin = self._table(torch.tensor(distance, device=states.device))
            self._last = (distance, cos, sin)
        return _turned(states, self._last[1], self._last[2])

    def rotate(self, states: Tensor, distance: Tensor) -> Tensor:
        """``states`` (..., d) turned by ``distance``, integers that broadcast against (...)."""
        return _turned(states, *self._table(distance))

    def _table(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines in float32; angles in float64, because a distance may be a million tokens."""
        frequencies = self._module.inv_freq.to(device=distance.device, dtype=torch.float64)
        angles = distance.to(torch.float64).unsqueeze(-1) * frequencies
        return angles.cos().float(), angles.sin().float()


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = cos.shape[-1]
    first, second, rest = states[..., :half], states[..., half : 2 * half], states[..., 2 * half :]
    first, second = first.float(), second.float()
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(states.dtype), rest], dim=-1)
