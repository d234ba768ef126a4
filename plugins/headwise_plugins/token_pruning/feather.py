"""Attention without positions, evenly spaced tokens beside it, and a second look later (FEATHER, ICCV 2025)."""

from __future__ import annotations

import attrs
import torch
from attrs import validators
from torch import Tensor

from headwise import Budget, Geometry, Preset, PruningPlan, Stage, hookimpl
from headwise.attention_math import ranking
from headwise.numbers import number, whole_or_none
from headwise.plan import Evidence

_at_least_one = validators.optional(validators.ge(1))


@attrs.frozen(eq=False)
class Feather:
    """FastV by attention without rotary positions, in two stages, the first keeping evenly spaced tokens as well.

    FEATHER (Endo, Wang and Yeung-Levy, "Feather the Throttle", ICCV 2025, arXiv 2412.13180). Rotary positions draw the
    attention of FastV's early layer to the bottom of the image, so ``criterion`` is ``unrotated``, or ``attention`` for
    what the model computed. Before ``layer`` the best tokens stay and, as cover, every ninth token; before
    ``second_layer`` the best of those stay. The authors' layers are 8 and 16 of 32, which is a quarter and half of the
    depth of any model and the default. ``uniform`` is the cover's share of all visual tokens.

    One number gives both counts, as in the authors' code, which keeps the best 0.3 and then 0.09 of what is left: with
    a share x by score, ``x + (1 - x) * uniform`` of all tokens stay first, and ``x * x`` of those in the end. The x
    that meets the budget is chosen; as the layers in front see everything, averages below a quarter are refused.

    Two things differ from that code. Its cover is every third row and column and overlaps with the best by chance,
    here it is ``floor((i + 0.5) * v / m)`` in reading order and the best are taken of the rest, so that counts are
    exact. And it takes the softmax over visual tokens alone, which is the recipe setting ``aggregate=normalised``.
    """

    asks = Preset("query_selection=last_token", "head_scoring=sum", "head_count=all")

    layer: int | None = attrs.field(default=None, converter=whole_or_none, validator=_at_least_one)
    second_layer: int | None = attrs.field(default=None, converter=whole_or_none, validator=_at_least_one)
    uniform: float = attrs.field(
        default=0.1111, converter=number, validator=validators.and_(validators.ge(0), validators.le(1))
    )
    criterion: str = attrs.field(default="unrotated", validator=validators.in_(("unrotated", "attention")))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """Two stages that share the budget."""
        layer = self.layer or max(1, round(geometry.layers / 4))
        second = self.second_layer or max(layer + 1, round(geometry.layers / 2))
        first, last = budget.staged(geometry, (layer, second), lambda x: self._counts(x, geometry.visual_tokens))
        reads = (self.criterion,)
        stages = (Stage(layer, first, self._covered, reads), Stage(second, last, self._attended, reads))
        return PruningPlan(geometry, stages)

    def _counts(self, x: float, visual: int) -> tuple[int, int]:
        """Tokens after each stage where the share ``x`` of them is kept by score."""
        first = max(1, round((x + (1 - x) * self.uniform) * visual))
        return first, max(1, round(x * x * first))

    def _attended(self, evidence: Evidence) -> Tensor:
        return evidence.attention(self.criterion)

    def _covered(self, evidence: Evidence) -> Tensor:
        """Positions (b, keep): the cover, and the best of all others."""
        cover = _spaced(min(evidence.keep, round(self.uniform * evidence.visual)), evidence.visual)
        scores = evidence.attention(self.criterion)
        scores = scores.index_fill(-1, cover.to(scores.device), float("inf"))
        return ranking(scores)[:, : evidence.keep]


def _spaced(count: int, visual: int) -> Tensor:
    """``count`` of ``visual`` positions at equal distances (count,), in whole numbers so that no two are the same."""
    return (2 * torch.arange(count) + 1) * visual // max(1, 2 * count)
