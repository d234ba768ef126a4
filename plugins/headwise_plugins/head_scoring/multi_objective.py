"""Rich, distinct and concentrated heads: three aims that pull apart, each measured against the other heads of the row.

After the strategy of the same name in LLaVA-FinePruner-Head, without its second softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwise import hookimpl
from headwise.similarity import exact, rounding

_CLOSE = 1e-6  # keeps heads that share no token with any other at a finite distinctness


class MultiObjective:
    """Richness, distinctness and concentration among heads: .4 (.7 H + .3 kurtosis) + .3 D + .3 S, in 0..1.

    Of the attention p renormalised over the image: H its entropy (rich is high), kurtosis m4 / m2^2 (0 where even),
    D = 1 / mean cosine with the other heads, S = sum p^2. Each is scaled to 0..1 over the heads of its row, to 0 where
    heads do not differ, so a score depends on the company a head is in.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """The three objectives over the heads of each row: (b, h, v) -> (b, h)."""
        p = _shares(attention)
        richness = 0.7 * _among_heads(torch.special.entr(p).sum(dim=-1)) + 0.3 * _among_heads(_kurtosis(p))
        distinctness = _among_heads(1 / (_mean_cosine(p) + _CLOSE))
        return 0.4 * richness + 0.3 * distinctness + 0.3 * _among_heads(p.square().sum(dim=-1))


def _kurtosis(p: Tensor) -> Tensor:
    """m4 / m2^2 over tokens, 0 for an even row. Multiples of the even share, whose fourth power would underflow."""
    deviation = p * p.shape[-1] - 1
    second, fourth = deviation.square().mean(dim=-1), deviation.pow(4).mean(dim=-1)
    even = second <= rounding(p) ** 2
    return torch.where(even, 0.0, fourth / second.masked_fill(even, 1).square())


def _mean_cosine(p: Tensor) -> Tensor:
    """Mean cosine of each head with the others; 0 for a head alone."""
    unit = torch.nn.functional.normalize(p, dim=-1)
    cosine = torch.einsum("bhv,bgv->bhg", unit, unit)
    others = 1 - torch.eye(p.shape[1], device=p.device, dtype=p.dtype)
    return (cosine * others).sum(dim=-1) / max(p.shape[1] - 1, 1)


def _among_heads(values: Tensor) -> Tensor:
    """Scaled to 0..1 over the heads of each row; 0 where they are equal up to rounding, which would be blown up."""
    low, high = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
    flat = high - low <= rounding(values) * high
    return torch.where(flat, 0.0, (values - low) / (high - low).masked_fill(flat, 1))


def _shares(attention: Tensor) -> Tensor:
    """Attention renormalised over the image; a head that ignores it counts as even."""
    x = exact(attention)
    mass, tiny = x.sum(dim=-1, keepdim=True), torch.finfo(torch.float32).tiny
    return torch.where(mass > tiny, x / mass.clamp_min(tiny), 1 / x.shape[-1])
