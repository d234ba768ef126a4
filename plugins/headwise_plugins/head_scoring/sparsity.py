"""How few visual tokens a head's attention is concentrated on, by norms.

``hoyer`` is the sparseness of Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 2004.
"""

from __future__ import annotations

import math

import attrs
import torch
from attrs import validators
from torch import Tensor

from headwise import hookimpl
from headwise.attention_math import shares


@attrs.frozen(eq=False)
class Sparsity:
    """Concentration of attention: sum p^2 of the attention p renormalised over the image; 1/v even, 1 a single token.

    ``form``: ``l2`` is the above. ``hoyer`` is (sqrt v - 1 / ||p||) / (sqrt v - 1), the same ranking on a scale from
    0 (even, or a single visual token in all) to 1. ``raw`` is the norm ||x|| before renormalising, which grows with
    the mass on the image; a head that ignores the image scores 0 by it, and as an even one by the others.
    """

    form: str = attrs.field(default="l2", validator=validators.in_(("l2", "hoyer", "raw")))

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Concentration over visual tokens: (b, h, v) -> (b, h)."""
        if self.form == "raw":
            norm: Tensor = torch.linalg.vector_norm(attention.float(), dim=-1)
            return norm
        squares = shares(attention.float()).square().sum(dim=-1)
        return squares if self.form == "l2" else _hoyer(squares, attention.shape[-1])


def _hoyer(squares: Tensor, tokens: int) -> Tensor:
    if tokens == 1:
        return torch.zeros_like(squares)
    most = math.sqrt(tokens)
    return ((most - squares.rsqrt()) / (most - 1)).clamp(0, 1)  # for an even row, rounding gives about -1e-7
