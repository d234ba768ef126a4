"""How far a head's attention over the image is from even, by Shannon entropy.

Among the head scores of LLaVA-FinePruner-Head, whose second softmax over attention is left out here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headwise import hookimpl
from headwise.attention_math import entropy, shares


class Entropy:
    """Missing entropy: 1 - H(p) / log v of the attention p renormalised over the image; 0 even, 1 a single token.

    Ignores how much attention the image gets. A head that ignores the image, or sees a single token, scores 0.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Missing entropy over visual tokens: (b, h, v) -> (b, h)."""
        tokens = attention.shape[-1]
        if tokens == 1:  # log 1 is 0, and with one token all heads are alike
            return attention.new_zeros(attention.shape[:-1], dtype=torch.float32)
        missing = 1 - entropy(shares(attention.float())) / math.log(tokens)
        return missing.clamp(0, 1)  # for an even row, rounding gives about -1e-7
