"""Lets several strategies choose heads and keeps, for each image, the choice of the best combination of heads.

Steps 1-4 of the dynamic head selection of LLaVA-FinePruner-Head, with two repairs: tiers follow the budget
itself, not a count of tokens that means it for one model only; and what is compared is brought to one scale first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from headwise import Preset, hookimpl
from headwise.attention_math import head_cosines, scaled
from headwise.composition import Inner
from headwise.plan import HeadChoice
from headwise.recipe import OWN
from headwise.similarity import exact

_SLACK = 0.99  # a processed average misses its budget by rounding: 191.63 for 192, 127.6 for 128
_ROUNDING = 1e-6  # smaller differences of scores, which are float32, and of qualities count as none


@attrs.frozen
class _Tier:
    """What is tried from a budget ``share`` on: scorers, and the fewest and most heads out of 32."""

    share: float
    candidates: tuple[str, ...]
    fewest: int
    most: int


_TIERS = (
    _Tier(192 / 576, ("sparsity", "hierarchical"), 14, 26),
    _Tier(128 / 576, ("sparsity", "hierarchical", "top_k_sum", "max_attention"), 8, 26),
    _Tier(0.0, ("graph_based", "multi_objective", "attention_range"), 6, 18),
)


@attrs.frozen(eq=False)
class Adaptive:
    """The best of several strategies and head counts, per image and budget; -inf beyond the heads it chose.

    The budget names the candidates: from a third of the visual tokens (processed on average, 1 % of slack) sparsity
    and hierarchical with 14-26 of 32 heads; from two ninths also top_k_sum and max_attention, 8-26; below graph_based,
    multi_objective and attention_range, 6-18. Ranges scale with the number of heads. ``median_of_three`` counts each
    candidate's heads, and the choice of the highest quality wins, the candidate named first among equals:

    .3 diversity + .3 (deviation + range) / 2 + .4 sharpness of the heads chosen. Diversity is 1 - their mean pairwise
    cosine. Deviation (sample) and range are of their scores, scaled to 0..1 over all heads of the row first. Sharpness
    is their mean variance times their mean maximum, each as a share of the largest of any head in the row, without
    which its size (1e-8) could decide nothing. A single head has diversity and deviation 0.

    The scores returned are the winner's, scaled to 0..1, so it asks for the head count ``all``, which keeps exactly
    its choice. The record's ``adaptive`` says per row which strategy and count were chosen. Heads with equal scores
    at the cut are told apart by position, and scores depend on the company a head is in.
    """

    asks = Preset("head_count=all")
    _inner: Inner = attrs.field(init=False, factory=Inner)

    @hookimpl
    def head_scoring(
        self, attention: Tensor, share: float, seeds: Tensor, note: Callable[[str, Sequence[object]], None]
    ) -> Tensor:
        """Scores of each row's best candidate, -inf for the heads it did not choose: (b, h, v) -> (b, h)."""
        # 1 candidates by budget, 2 their scores, 3 their counts
        tier = next(tier for tier in _TIERS if share >= tier.share * _SLACK)
        choices = [self._choose(name, tier, attention, share, seeds) for name in tier.candidates]
        # 4 the best combination, of equals the first; all are (b, candidates, h)
        raw, kept = (torch.stack([getattr(choice, of) for choice in choices], dim=1) for of in ("scores", "kept"))
        scores = scaled(raw, ~torch.isneginf(raw), slack=_ROUNDING)
        quality = _quality(exact(attention), exact(scores), kept)
        best = (quality >= quality.amax(dim=-1, keepdim=True) - _ROUNDING).int().argmax(dim=-1)
        chosen = [(tier.candidates[winner], int(row[winner].sum())) for row, winner in zip(kept, best, strict=True)]
        note("adaptive", [{"strategy": name, "count": count} for name, count in chosen])
        return scores.masked_fill(~kept, float("-inf"))[torch.arange(len(best), device=best.device), best]

    def _choose(self, name: str, tier: _Tier, attention: Tensor, share: float, seeds: Tensor) -> HeadChoice:
        """What one candidate would do, by the same checks and rules as if the user had named it."""
        heads = attention.shape[1]
        low, high = (max(1, int(bound * heads / 32 + 0.5)) for bound in (tier.fewest, tier.most))
        rule = f"median_of_three:low={low},high={high}"
        run = self._inner.run(head_scoring=name, head_count=rule, prefer=OWN)
        return run.choose_heads(attention, share, lambda: seeds)


def _quality(x: Tensor, scores: Tensor, kept: Tensor) -> Tensor:
    """What the kept heads are worth together, (b, candidates): of attention (b, h, v), the rest (b, candidates, h)."""
    return 0.3 * _diversity(x, kept) + 0.3 * _spread(scores, kept) + 0.4 * _sharpness(x, kept)


def _diversity(x: Tensor, kept: Tensor) -> Tensor:
    """1 - mean pairwise cosine of the kept heads; heads that ignore the image are alike. 0 for a single head."""
    blind = x.sum(dim=-1, keepdim=True) <= torch.finfo(torch.float32).tiny
    different = 1 - head_cosines(x.masked_fill(blind, 1.0))
    different = different * (1 - torch.eye(x.shape[1], device=x.device, dtype=x.dtype))
    weight = kept.to(x.dtype)
    pairs = weight.sum(dim=-1) * (weight.sum(dim=-1) - 1)
    return torch.einsum("bch,bhg,bcg->bc", weight, different, weight) / pairs.clamp_min(1)


def _spread(scores: Tensor, kept: Tensor) -> Tensor:
    """Half of sample deviation plus range of the kept heads' scores."""
    count = kept.sum(dim=-1)
    mean = (scores * kept).sum(dim=-1) / count
    squares = ((scores - mean.unsqueeze(-1)).square() * kept).sum(dim=-1)
    reach = scores.masked_fill(~kept, 0.0).amax(dim=-1) - scores.masked_fill(~kept, 1.0).amin(dim=-1)
    return ((squares / (count - 1).clamp_min(1)).sqrt() + reach) / 2


def _sharpness(x: Tensor, kept: Tensor) -> Tensor:
    """Mean variance times mean maximum of the kept heads, each as a share of the largest in the row; 0 if that is 0."""
    values = torch.stack([x.var(dim=-1, correction=0), x.amax(dim=-1)])
    largest = values.amax(dim=-1, keepdim=True)
    weight = kept.to(x) / kept.sum(dim=-1, keepdim=True)
    return (torch.einsum("bch,kbh->kbc", weight, values) / largest.masked_fill(largest == 0, 1)).prod(dim=0)
