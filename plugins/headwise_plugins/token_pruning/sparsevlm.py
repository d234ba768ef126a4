"""In three stages the most attended tokens stay and a part of the others is merged (SparseVLM, ICML 2025)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import attrs
import torch
from attrs import converters, validators
from torch import Tensor

from headwise import Budget, BudgetError, Geometry, Merged, Preset, PruningPlan, Stage, hookimpl
from headwise.attention_math import ranking, taken
from headwise.budget import processed_per_layer
from headwise.numbers import number, whole_or_none
from headwise.options import layer_list, layers_in
from headwise.plan import Evidence
from headwise.similarity import exact

LAYERS, DEPTH, VISUAL = (3, 7, 16), 32, 576
"""The published stages, behind layers 2, 6 and 15 of 32 (or of 40), and the visual tokens the lists are made for."""

PUBLISHED = {
    "v1": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "plus": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
"""Tokens kept after each stage, merged ones not counted, by variant and by the average in a setting's name."""


def _layers(text: object) -> str:
    return layer_list(text, "3/7/16", count=3)


@attrs.frozen(eq=False)
class SparseVlm:
    """Three times: the tokens that the question's raters attend to most stay, the next ones are clustered and merged.

    SparseVLM (Zhang et al., ICML 2025, arXiv 2410.04417). Asked are, unless others are named, ``raters`` and all heads,
    or for SparseVLM+ the half of the heads with the largest sum. ``variant``: ``v1``, or ``plus``, whose attention is
    corrected for what rotary positions alone give, and which recycles nothing. ``layers``: the stages, each in front
    of a layer, ``3/7/16`` or in a model of fewer than 20 layers as deep in proportion. ``published``: the counts of
    the papers' settings 192, 128, 96 or 64 (reported averages), in proportion to the visual tokens; else a budget is
    met by counts between those. ``recycle``: this share of the dropped tokens, the most attended (0.3, none in
    ``plus``), is merged into clusters, one for each 1/``clusters`` of them. ``merged``: where a merged token stands,
    at its cluster's ``centre``, or at the ``end`` behind the kept tokens as in the published code (for
    positions=compact).

    A stage's tokens are kept and merged ones together. The published code adds noise to the density of tokens; here
    equal ones are told apart by position, the lower first.
    """

    variant: str = attrs.field(default="v1", validator=validators.in_(tuple(PUBLISHED)))
    layers: str | None = attrs.field(default=None, converter=converters.optional(_layers))
    published: int | None = attrs.field(
        default=None,
        converter=whole_or_none,
        validator=validators.optional(validators.in_(PUBLISHED["v1"])),
    )
    recycle: float = attrs.field(converter=number, validator=[validators.ge(0), validators.le(1)])
    clusters: float = attrs.field(default=0.1, converter=number, validator=[validators.ge(0), validators.le(1)])
    merged: str = attrs.field(default="centre", validator=validators.in_(("centre", "end")))

    @recycle.default
    def _only_v1_recycles(self) -> float:
        return 0.3 if self.variant == "v1" else 0.0

    @property
    def asks(self) -> Preset:
        """The raters, and of the heads all, or in ``plus`` the half with the largest sum."""
        count = "all" if self.variant == "v1" else "fixed:share=0.5"
        return Preset("query_selection=raters", "head_scoring=sum", f"head_count={count}")

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """Three stages that read attention and hidden states; ``reported`` counts them a layer early, as the code does.

        Raises BudgetError for a budget beside ``published``, and for one that cannot be met.
        """
        layers = self._places(geometry.layers)
        counts = self._counts(geometry, budget, layers)
        stages = tuple(
            Stage(layer, keep, self._select, reads=(self._kind,), merged=keep - self._kept(entering, keep))
            for layer, keep, entering in zip(layers, counts, (geometry.visual_tokens, *counts), strict=False)
        )
        early = processed_per_layer(geometry, [(stage.layer - 1, stage.keep) for stage in stages])
        return PruningPlan(geometry, stages, reported=sum(early) / geometry.layers)

    @property
    def _kind(self) -> str:
        return "attention" if self.variant == "v1" else "unbiased"

    def _places(self, depth: int) -> tuple[int, ...]:
        if self.layers is not None:
            return layers_in(self.layers)
        if depth >= 20:
            return LAYERS
        places: list[int] = []
        for layer in LAYERS:
            places.append(max(places[-1] + 1 if places else 1, round(layer * depth / DEPTH)))
        return tuple(places)

    def _counts(self, geometry: Geometry, budget: Budget, layers: Sequence[int]) -> Sequence[int]:
        """Tokens after each stage: those of a published setting, or of a point between all of these."""
        visual, settings = geometry.visual_tokens, PUBLISHED[self.variant]
        if self.published is not None:
            if budget.tokens is not None or budget.keep is not None:
                raise BudgetError(
                    f"token_pruning strategy 'sparsevlm:published={self.published}' has its own counts, so"
                    f" {budget.text} cannot be met beside it; give one of the two"
                )
            return self._totals(settings[self.published], visual)
        known = [(1, 1, 1), *(self._totals(settings[name], visual) for name in sorted(settings)), (visual,) * 3]

        def between(x: float) -> list[int]:
            step = min(int(x * (len(known) - 1)), len(known) - 2)
            part = x * (len(known) - 1) - step
            return [int(low + part * (high - low) + 0.5) for low, high in zip(*known[step : step + 2], strict=True)]

        return budget.staged(geometry, layers, between)

    def _totals(self, kept: Sequence[int], visual: int) -> tuple[int, ...]:
        """Kept and merged tokens after each stage, where the lists are for 576 visual tokens."""
        totals = [visual]
        for count in kept:
            scaled = min(totals[-1], max(1, int(count * visual / VISUAL + 0.5)))
            totals.append(scaled + self._merged(totals[-1] - scaled))
        return tuple(totals[1:])

    def _candidates(self, dropped: int) -> int:
        """How many of the dropped tokens are recycled: a share and one more, none where nothing is recycled."""
        return min(dropped, int(self.recycle * dropped) + 1) if self.recycle else 0

    def _merged(self, dropped: int) -> int:
        """How many merged tokens come of so many dropped ones: a share of the candidates and one more."""
        candidates = self._candidates(dropped)
        return min(candidates, int(self.clusters * candidates) + 1)

    def _kept(self, entering: int, leaving: int) -> int:
        """The most tokens that can stay as they are, so that they and the merged ones are ``leaving``; at least 1.

        With one kept token more there are as many tokens or one more, so every number can be split, but the lowest,
        for which fewer are merged.
        """
        total = bisect_right(range(entering + 1), leaving, key=lambda kept: kept + self._merged(entering - kept))
        return max(1, total - 1)

    def _select(self, evidence: Evidence) -> Tensor | Merged:
        scores = evidence.attention(self._kind)
        kept = self._kept(evidence.visual, evidence.keep)
        if kept == evidence.keep:
            return scores
        order = ranking(scores)
        recycled = order[:, kept : kept + self._candidates(evidence.visual - kept)].sort(dim=-1).values
        centres, cluster = density_peaks(taken(exact(evidence.hidden()), recycled), evidence.keep - kept)
        places = torch.cat([order[:, :kept].sort(dim=-1).values, recycled.gather(1, centres)], dim=1)
        weights = scores.new_zeros((*places.shape, evidence.visual))
        weights[:, :kept].scatter_(2, places[:, :kept, None], 1.0)
        members = torch.nn.functional.one_hot(cluster, centres.shape[1]).mT.to(weights)
        means = members / members.sum(dim=-1, keepdim=True)
        weights[:, kept:].scatter_(2, recycled.unsqueeze(1).expand_as(means), means)
        return Merged(places if self.merged == "centre" else places.sort(dim=-1).values, weights)


def density_peaks(points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Clusters of points (b, n, d) by density peaks: centres (b, count), best first, and clusters (b, n).

    A point's density falls with its mean squared distance to its ``count`` nearest points, itself among them. Centres
    are dense and far from every denser point; every point goes to the nearest centre. Of equals the first is denser.
    """
    # A matrix product would give equal points a distance above 0, and make rows depend on the others of the batch.
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / points.shape[-1] ** 0.5
    nearest = distances.topk(count, dim=-1, largest=False).values
    density = nearest.square().mean(dim=-1).neg().exp()
    rank = ranking(density).argsort(dim=-1)
    denser = rank.unsqueeze(1) < rank.unsqueeze(2)  # [b, i, j]: j is denser than i
    farthest = distances.amax(dim=(1, 2), keepdim=True)
    apart = torch.where(denser, distances, farthest).amin(dim=-1)
    centres = ranking(density * apart)[:, :count]
    to_centres = distances.gather(2, centres.unsqueeze(1).expand(-1, distances.shape[1], -1))
    return centres, to_centres.argmin(dim=-1).scatter(1, centres, torch.arange(count).to(centres).expand_as(centres))
