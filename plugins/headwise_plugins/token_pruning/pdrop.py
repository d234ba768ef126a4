"""In stages, each keeping a fixed share of the tokens in front of it (PyramidDrop, CVPR 2025, arXiv 2410.17247)."""

from __future__ import annotations

import attrs
from attrs import converters, validators
from torch import Tensor

from headwise import Budget, BudgetError, Geometry, Preset, PruningPlan, Stage, hookimpl
from headwise.numbers import number, whole_or_none
from headwise.options import layer_list, layers_in
from headwise.plan import Evidence
from headwise.text import show

LAYERS = (8, 16, 24)
"""The published stages, of models with more than 24 layers."""


def _layers(text: object) -> str:
    return layer_list(text, "8/16/24")


def _ratios(text: object) -> str:
    """Shares as text: numbers above 0 and up to 1, none above the one in front of it."""
    ratios = [number(part) for part in str(text).split("/")]
    if not all(0 < ratio <= 1 for ratio in ratios) or sorted(ratios, reverse=True) != ratios:
        raise ValueError(f"ratios={text} are not falling shares of 0..1, none of them 0; write ratios=0.5/0.25/0.125")
    return "/".join(show(ratio) for ratio in ratios)


@attrs.frozen(eq=False)
class PDrop:
    """Several times: the tokens that the next layer's own queries and keys find most attended stay.

    PyramidDrop (Xing et al., CVPR 2025). Who asks is query_selection; the paper's last instruction token is
    ``last_token``, the default. ``layers``: the stages, each in front of a layer, ``8/16/24`` or in a model of up to 24
    layers at the quarters of its depth. ``early``: one more stage in front of that layer; the comparison tables at
    averages of 192, 128 and 64, which the published stages alone cannot meet, have it at 2. ``ratios``: what stays
    after each stage, as shares of all visual tokens, rounded down. By default, a half more goes at each stage; with a
    budget, the same share at each, as large as the budget allows. Ratios and a budget exclude each other.
    """

    asks = Preset("query_selection=last_token", "head_scoring=sum", "head_count=all")

    layers: str | None = attrs.field(default=None, converter=converters.optional(_layers))
    early: int | None = attrs.field(
        default=None, converter=whole_or_none, validator=validators.optional(validators.ge(1))
    )
    ratios: str | None = attrs.field(default=None, converter=converters.optional(_ratios))

    def __attrs_post_init__(self) -> None:
        stages = len(self._places(25))  # the number of stages is the same for every depth
        if self.ratios is not None and stages != len(self.ratios.split("/")):
            raise ValueError(f"ratios={self.ratios} are not one for each of {stages} layers; give as many")

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage per layer, reading the attention of that layer; raises BudgetError where none would stay."""
        layers = self._places(geometry.layers)
        if budget.tokens is None and budget.keep is None:
            counts = self._shares(geometry.visual_tokens, len(layers))
        elif self.ratios is None:
            counts = budget.staged(geometry, layers, lambda x: _powers(x, geometry.visual_tokens, len(layers)))
        else:
            raise BudgetError(
                f"token_pruning strategy 'pdrop:ratios={self.ratios}' has its own counts, so {budget.text} cannot be"
                " met beside it; give one of the two"
            )
        return PruningPlan(
            geometry, tuple(Stage(*stage, _attended, reads=("own",)) for stage in zip(layers, counts, strict=True))
        )

    def _places(self, depth: int) -> tuple[int, ...]:
        if self.layers is not None:
            places = set(layers_in(self.layers))
        elif depth > LAYERS[-1]:
            places = set(LAYERS)
        else:
            places = {max(1, quarter * depth // 4) for quarter in (1, 2, 3)}
        return tuple(sorted(places if self.early is None else places | {self.early}))

    def _shares(self, visual: int, stages: int) -> tuple[int, ...]:
        """Tokens left by the ratios; a ratio that leaves none is a BudgetError."""
        given = self.ratios.split("/") if self.ratios else [0.5 ** (stage + 1) for stage in range(stages)]
        ratios = [float(ratio) for ratio in given]
        for ratio in ratios:
            if visual == 0:
                raise BudgetError("token_pruning strategy 'pdrop' has nothing to prune: the model reads text alone")
            if int(visual * ratio) < 1:
                raise BudgetError(
                    f"token_pruning strategy 'pdrop' would keep {ratio:g} of {visual} visual tokens, which is none;"
                    f" give ratios of at least {1 / visual:.4g}, or a budget"
                )
        return tuple(int(visual * ratio) for ratio in ratios)


def _powers(share: float, visual: int, stages: int) -> list[int]:
    """Tokens left where each stage keeps the same share of what it is given; at least 1."""
    return [max(1, int(visual * share ** (stage + 1))) for stage in range(stages)]


def _attended(evidence: Evidence) -> Tensor:
    return evidence.attention("own")
