"""Salient tokens stay, the others are merged into evenly spaced ones (VisionZip, CVPR 2025, arXiv 2412.04467)."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from headwise import Budget, Geometry, PruningPlan, Stage, hookimpl
from headwise.attention_math import ranking, taken
from headwise.numbers import number
from headwise.plan import Evidence, Merged
from headwise.similarity import cosines


@attrs.frozen(eq=False)
class VisionZip:
    """Before the language model: dominant tokens stay, and contextual tokens stand for what is left of the picture.

    ``dominant``: share of the kept tokens with the most attention in the vision tower; the published 54 of 64, 108 of
    128 and 162 of 192 are all 0.84375. All of them are patches here, where the published code gives one place to the
    CLS token. The others are contextual: targets at equal distances among the remaining tokens in reading order (the
    distance rounded down), and every other remaining token merges into the target with the most similar keys.
    ``merge``: ``target`` gives the target and the mean of what merges into it half the weight each, in proportion as
    the published code adds them; ``members`` gives every token the same weight. Merging follows the projector here,
    and precedes it there. Of equals the lower position stays or is the target.
    """

    dominant: float = attrs.field(
        default=0.84375, converter=number, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )
    merge: str = attrs.field(default="target", validator=attrs.validators.in_(("target", "members")))

    @hookimpl
    def token_pruning(self, geometry: Geometry, budget: Budget) -> PruningPlan:
        """One stage that reads the vision tower's saliency and keys."""
        keep = budget.one_stage(geometry, 0)
        merged = min(keep - self._dominant(keep), geometry.visual_tokens - keep)
        return PruningPlan(geometry, (Stage(0, keep, self._zipped, reads=("vision",), merged=merged, per_image=True),))

    def _dominant(self, keep: int) -> int:
        return int(keep * self.dominant + 0.5)

    def _zipped(self, evidence: Evidence) -> Tensor | Merged:
        """Dominant tokens as they are and contextual ones merged; positions alone where none is contextual."""
        dominant = self._dominant(evidence.keep)
        order = ranking(evidence.saliency().float())
        if dominant == evidence.keep:
            return order[:, :dominant]
        rest = order[:, dominant:].sort(dim=-1).values
        targets = _spaced(rest, evidence.keep - dominant)
        contextual = self._weights(targets, _members(rest, targets, evidence.vision_keys()))
        alone = one_hot(order[:, :dominant], evidence.visual).to(contextual)
        return Merged(torch.cat((order[:, :dominant], targets), dim=-1), torch.cat((alone, contextual), dim=1))

    def _weights(self, targets: Tensor, members: Tensor) -> Tensor:
        """Merging weights (b, t, v) that sum to 1, of targets (b, t) and who belongs to them, (b, t, v)."""
        if self.merge == "members":
            return members / members.sum(dim=-1, keepdim=True)
        itself = one_hot(targets, members.shape[-1]).to(members)
        others = members - itself
        count = others.sum(dim=-1, keepdim=True)
        return torch.where(count > 0, (itself + others / count.clamp_min(1)) / 2, itself)


def _spaced(rest: Tensor, count: int) -> Tensor:
    """``count`` of the positions (b, n), as far apart as whole steps from the first allow: (b, count)."""
    return rest[:, :: rest.shape[-1] // count][:, :count]


def _members(rest: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
    """Which token belongs to which target: 1 or 0, float32 (b, t, v); a target belongs to itself."""
    nearest = cosines(keys, taken(keys, targets)).argmax(dim=-1)  # the first of equals
    own = torch.arange(targets.shape[-1], device=targets.device).expand_as(targets)
    belongs = one_hot(nearest.scatter(-1, targets, own), targets.shape[-1]).mT.float()
    remaining = torch.zeros_like(belongs[:, 0]).scatter(-1, rest, 1.0)
    return belongs * remaining.unsqueeze(1)
