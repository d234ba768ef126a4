"""Heads chosen in two steps: peaked ones survive, and of these the rich, distinct and steady ones lead.

After the strategy of the same name in LLaVA-FinePruner-Head, without its second softmax.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headwise import hookimpl
from headwise.similarity import exact, rounding

_STEADY = 1e-6  # keeps an even head at a finite steadiness


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
        p, heads = _shares(attention), attention.shape[1]
        wanted = max(heads // 2, 1) if target is None else target
        entropy, most = torch.special.entr(p).sum(dim=-1), math.log(p.shape[-1])
        survivors = _survivors(p, entropy, min(heads, max(2 * wanted, wanted + 4)))
        steadiness = 1 / (p.std(dim=-1, correction=0) + _STEADY)
        score = (
            0.3 * _among(survivors, entropy)
            + 0.25 * _among(survivors, most - entropy)
            + 0.25 * _among(survivors, _distance(p, survivors))
            + 0.2 * _among(survivors, steadiness)
        )
        return score.masked_fill(~survivors, float("-inf"))


def _survivors(p: Tensor, entropy: Tensor, count: int) -> Tensor:
    """The ``count`` most peaked heads, bool (b, h). Ties with the last stay, so that equal heads fare equally."""
    most = math.log(p.shape[-1]) or 1.0  # of a single token, whose entropy is 0
    peaked = 0.6 * p.square().sum(dim=-1) + 0.4 * (1 - entropy / most)
    last = peaked.topk(count, dim=-1).values[..., -1:]
    return peaked >= last - rounding(p)


def _distance(p: Tensor, survivors: Tensor) -> Tensor:
    """How far each head's direction is from the survivors' mean direction: (b, h)."""
    unit = torch.nn.functional.normalize(p, dim=-1)
    weights = survivors.to(p) / survivors.sum(dim=-1, keepdim=True)
    centre = torch.einsum("bhv,bh->bv", unit, weights)
    distance: Tensor = torch.linalg.vector_norm(unit - centre.unsqueeze(1), dim=-1)
    return distance


def _among(survivors: Tensor, values: Tensor) -> Tensor:
    """Scaled to 0..1 over survivors; 0 where they are equal up to rounding, which would be blown up."""
    low = values.masked_fill(~survivors, float("inf")).amin(dim=-1, keepdim=True)
    high = values.masked_fill(~survivors, float("-inf")).amax(dim=-1, keepdim=True)
    flat = high - low <= rounding(values) * high.clamp_min(1)
    return torch.where(flat, 0.0, (values - low) / (high - low).masked_fill(flat, 1))


def _shares(attention: Tensor) -> Tensor:
    """Attention renormalised over the image; a head that ignores it counts as even."""
    x = exact(attention)
    mass, tiny = x.sum(dim=-1, keepdim=True), torch.finfo(torch.float32).tiny
    return torch.where(mass > tiny, x / mass.clamp_min(tiny), 1 / x.shape[-1])
