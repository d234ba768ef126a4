"""Rich, distinct and concentrated heads: three aims that pull apart, each measured against the other heads of the row.

After the strategy of the same name in LLaVA-FinePruner-Head, without its second softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headwise import hookimpl
from headwise.attention_math import entropy, head_cosines, scaled, shares
from headwise.similarity import exact, rounding

_CLOSE = 1e-6  # heads that share no token with others have a mean cosine of 0


class MultiObjective:
    """Richness, distinctness and concentration among heads: .4 (.7 H + .3 kurtosis) + .3 D + .3 S, in 0..1.

    Of the attention p renormalised over the image: H its entropy (rich is high), kurtosis m4 / m2^2 (0 where even),
    D = 1 / mean cosine with the other heads, S = sum p^2. Each is scaled to 0..1 over the heads of its row, to 0 where
    heads do not differ, so a score depends on the company a head is in.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """The three objectives over the heads of each row: (b, h, v) -> (b, h)."""
        p = shares(exact(attention))
        richness = 0.7 * scaled(entropy(p)) + 0.3 * scaled(_kurtosis(p))
        distinctness = scaled(1 / (_mean_cosine(p) + _CLOSE))
        return 0.4 * richness + 0.3 * distinctness + 0.3 * scaled(p.square().sum(dim=-1))


def _kurtosis(p: Tensor) -> Tensor:
    """m4 / m2^2 over tokens, 0 for an even row. Multiples of the even share, whose fourth power would underflow."""
    deviation = p * p.shape[-1] - 1
    second, fourth = deviation.square().mean(dim=-1), deviation.pow(4).mean(dim=-1)
    even = second <= rounding(p) ** 2
    return torch.where(even, 0.0, fourth / second.masked_fill(even, 1).square())


def _mean_cosine(p: Tensor) -> Tensor:
    """Mean cosine of each head with the others; 0 for a head alone."""
    others = 1 - torch.eye(p.shape[1], device=p.device, dtype=p.dtype)
    return (head_cosines(p) * others).sum(dim=-1) / max(p.shape[1] - 1, 1)
