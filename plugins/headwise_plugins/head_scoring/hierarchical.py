"""Heads chosen in two steps: peaked ones survive, and of these the rich, distinct and steady ones lead.

After the strategy of the same name in LLaVA-FinePruner-Head, without its second softmax.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headwise import hookimpl
from headwise.attention_math import entropy, scaled, shares
from headwise.similarity import exact, rounding

_STEADY = 1e-6  # an even head has deviation 0


class Hierarchical:
    """Peaked heads first, then rich, distinct and steady ones among them, in 0..1; -inf for heads cut at the start.

    Of k wanted heads (half of all where ``target`` is unknown), the max(2k, k + 4) with the highest
    .6 sum p^2 + .4 (1 - H / log v) survive, along with any that tie with the last of them; p is the attention
    renormalised over the image, H its entropy. Survivors score .3 H + .25 (log v - H) + .25 D + .2 / deviation, where
    D is the distance of p / ||p|| from the survivors' mean; each term is scaled to 0..1 over survivors, to 0 where
    they do not differ. A score depends on the company a head is in.
    """

    @hookimpl
    def head_scoring(self, attention: Tensor, target: int | None) -> Tensor:
        """Fine score of the coarse survivors, -inf for the others: (b, h, v) -> (b, h)."""
        p, heads = shares(exact(attention)), attention.shape[1]
        wanted = max(heads // 2, 1) if target is None else target
        spread, most = entropy(p), math.log(p.shape[-1])
        survivors = _survivors(p, spread, min(heads, max(2 * wanted, wanted + 4)))
        steadiness = 1 / (p.std(dim=-1, correction=0) + _STEADY)
        score = (
            0.3 * scaled(spread, survivors, unit=1)
            + 0.25 * scaled(most - spread, survivors, unit=1)
            + 0.25 * scaled(_distance(p, survivors), survivors, unit=1)
            + 0.2 * scaled(steadiness, survivors, unit=1)
        )
        return score.masked_fill(~survivors, float("-inf"))


def _survivors(p: Tensor, spread: Tensor, count: int) -> Tensor:
    """The ``count`` most peaked heads, bool (b, h). Ties with the last stay, so that equal heads fare equally."""
    most = math.log(p.shape[-1]) or 1.0  # for a single token, log 1 is 0
    peaked = 0.6 * p.square().sum(dim=-1) + 0.4 * (1 - spread / most)
    last = peaked.topk(count, dim=-1).values[..., -1:]
    return peaked >= last - rounding(p)


def _distance(p: Tensor, survivors: Tensor) -> Tensor:
    """How far each head's direction is from the survivors' mean direction: (b, h)."""
    unit = torch.nn.functional.normalize(p, dim=-1)
    weights = survivors.to(p) / survivors.sum(dim=-1, keepdim=True)
    centre = torch.einsum("bhv,bh->bv", unit, weights)
    distance: Tensor = torch.linalg.vector_norm(unit - centre.unsqueeze(1), dim=-1)
    return distance
