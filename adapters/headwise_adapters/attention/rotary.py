"""Turning keys and queries that carry rotary embeddings by further positions. Partial rotary included.

Models turn pairs of numbers, and which numbers make a pair differs (a :data:`Layout`). Which one a layer has is seen
when its attention is tried (:mod:`headwise_adapters.eviction.served`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from headwise.autocast import without_autocast
from headwise.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Layout = Literal["halves", "neighbours", "unturned"]
"""Which numbers of a head are turned together: i and i + half (Llama), 2i and 2i + 1 (GLM, Cohere), or none at all."""

_AT_ONCE = 32  # matrices of following distances that are made together: decoding asks for one after the other
_REMEMBERED = 16  # such bundles: one for each different room of a plan, and a few more
_CHANGING = ("dynamic", "longrope")  # their frequencies depend on the length of the text


class Rotary:
    """Rotations in one kind of layer, of a head's first ``2 * len(frequencies)`` numbers, paired as ``layout`` says.

    The model's frequencies are read at every call, so a model that was converted or changed meanwhile is followed.
    Raises ModelError for rotations that change with the length of the text.
    """

    def __init__(self, text: PreTrainedModel, kind: str, layout: Layout = "halves") -> None:
        """Read the rotations in layers of a ``kind``, such as ``full_attention``; raises ModelError as the class says.

        A model with frequencies of their own for some kinds names them after the kind.
        """
        module, self._name = text.rotary_emb, "inv_freq"
        rope_type = getattr(module, "rope_type", "default")
        if isinstance(rope_type, dict):
            self._name, rope_type = f"{kind}_inv_freq", rope_type.get(kind)
        if rope_type in _CHANGING:
            raise ModelError(
                f"rotary embeddings of type {rope_type!r} change with the length of the text and cannot be moved;"
                " use positions=original, without rerotate"
            )
        self._text, self.layout = text, layout
        if not isinstance(getattr(module, self._name, None), Tensor):
            raise ModelError(
                f"{type(module).__name__} has no {self._name}, and keys of its layers cannot be moved without;"
                " use positions=original, without rerotate"
            )
        self._known = self._frequencies
        self._turns: dict[tuple[int, int, torch.device], Sequence[Tensor]] = {}

    @property
    def _frequencies(self) -> Tensor:
        """One angle for each pair and token."""
        found: Tensor = getattr(self._text.rotary_emb, self._name)
        return found

    def __deepcopy__(self, _: object) -> Rotary:
        """Copies of a cache share the model's rotations."""
        return self

    def by(self, states: Tensor, distance: int) -> Tensor:
        """All ``states`` (..., d) turned by one distance, in tokens; a single matrix product, as decoding needs it."""
        if self.layout == "unturned":
            return states.clone()
        start = distance // _AT_ONCE * _AT_ONCE
        key, frequencies = (start, states.shape[-1], states.device), self._frequencies
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
        if self.layout == "unturned":
            return states.clone()
        return _turned(states, *self._table(distance), neighbours=self.layout == "neighbours")

    def _table(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines in float32; angles in float64, because a distance may be a million tokens."""
        frequencies = self._frequencies.to(device=distance.device, dtype=torch.float64)
        angles = distance.to(torch.float64).unsqueeze(-1) * frequencies
        return angles.cos().float(), angles.sin().float()


def _turned(states: Tensor, cos: Tensor, sin: Tensor, *, neighbours: bool) -> Tensor:
    """``states`` (..., d) with pairs turned by angles of cosines and sines (..., pairs)."""
    size = 2 * cos.shape[-1]
    pairs, rest = states[..., :size].float(), states[..., size:]
    first, second = (pairs[..., ::2], pairs[..., 1::2]) if neighbours else pairs.chunk(2, dim=-1)
    moved = (first * cos - second * sin, second * cos + first * sin)
    turned = torch.stack(moved, dim=-1).flatten(-2) if neighbours else torch.cat(moved, dim=-1)
    return torch.cat([turned.to(states.dtype), rest], dim=-1)
