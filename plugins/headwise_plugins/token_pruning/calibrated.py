"""FastV with a weight for every head, measured beforehand by leaving heads out (as HAWK, CVPR 2026)."""

from __future__ import annotations

from functools import partial

import attrs
import torch
from attrs import validators
from torch import Tensor

from headwise import Budget, DataError, Geometry, Preset, PruningPlan, Stage, StrategyError, hookimpl
from headwise.head_weights import HeadWeights
from headwise.numbers import whole
from headwise.plan import Evidence
from headwise.reading import local_path


@attrs.frozen(eq=False)
class Calibrated:
    """Once, before decoder layer ``layer``: the tokens stay that the important heads of the layer in front look at.

    In the manner of HAWK (CVPR 2026, arXiv 2604.07812): a token's score is the sum over heads of a static weight of the
    head times the attention that the text pays the token, here that of the queries which query_selection says, by
    default the last token. ``weights`` is the file that `headwise calibrate` wrote for the model; its weights below 0
    count as 0, and where all heads of the layer have none they count alike, which is FastV. head_scoring and head_count
    have no say.

    HAWK prunes before the first layer by that layer's queries and keys without rotary positions, takes their products
    without a softmax, scales each head's row to length 1, and has one weight per head number for the whole model. Here
    weights belong to heads of one layer. ``criterion=unrotated`` leaves the positions out, and ``norm=l2`` scales each
    head's row to length 1, so that a head's share in the choice is its weight and not its attention to the image.

    ``digest`` is taken from the file and tells in records which weights were used; where one is given, a file with
    other weights is refused.
    """

    asks = Preset("query_selection=last_token")

    layer: int = attrs.field(default=2, converter=whole, validator=validators.ge(1))
    weights: str | None = attrs.field(default=None, converter=attrs.converters.optional(str))
    criterion: str = attrs.field(default="attention", validator=validators.in_(("attention", "unrotated")))
    norm: str = attrs.field(default="none", validator=validators.in_(("none", "l2")))
    digest: str | None = attrs.field()

    @digest.default
    def _found(self) -> str | None:
        return None if self.weights is None else _read(self.weights).digest

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads attention by head."""
        weights = torch.from_numpy(self._loaded(geometry).of_layer(self.layer - 1)).float()
        keep = budget.one_stage(geometry, self.layer)
        stage = Stage(self.layer, keep, partial(self._weighted, weights), reads=(self.criterion,))
        return PruningPlan(geometry, (stage,))

    def _loaded(self, geometry: Geometry) -> HeadWeights:
        """The weights in the file, checked against the model and the digest."""
        if self.weights is None:
            raise StrategyError(
                "token_pruning strategy 'calibrated' needs the weights of the model's heads; make them with"
                " `headwise calibrate --out weights.json` and write calibrated:weights=weights.json"
            )
        found = _read(self.weights)
        if found.digest != self.digest:
            raise DataError(
                f"head weights {self.weights} have the digest {found.digest} and not {self.digest};"
                " leave the option digest out to use them all the same"
            )
        found.check(geometry)
        return found

    def _weighted(self, weights: Tensor, evidence: Evidence) -> Tensor:
        """Token scores (b, v) from weights (h,)."""
        attention = evidence.head_attention(self.criterion)
        if self.norm == "l2":
            attention = torch.nn.functional.normalize(attention, dim=-1)
        return torch.einsum("bhv,h->bv", attention, weights.to(attention))


def _read(path: str) -> HeadWeights:
    return HeadWeights.load(local_path(path))
