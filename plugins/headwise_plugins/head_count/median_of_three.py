"""The median of gap, quality and contribution: the head count of FinePruner's dynamic head selection."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise import hookimpl
from headwise.composition import Inner
from headwise.options import HeadRange
from headwise.recipe import OWN
from headwise.text import chosen_options, written

RULES = ("score_gap", "quality_threshold", "cumulative_contribution")


@attrs.frozen(eq=False)
class MedianOfThree(HeadRange):
    """The median of what score_gap, quality_threshold and cumulative_contribution want, each with its defaults.

    The count stays within ``low`` and ``high`` (default 1 and the number of heads), and never exceeds the heads that
    are not vetoed. Equal scores give the contribution's count, or ``high`` where that is lower; one dominant head
    gives ``low``.
    """

    _inner: Inner = attrs.field(init=False, factory=Inner)

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """One count per row (b,)."""
        return torch.stack([self._counts(rule, scores) for rule in RULES]).median(dim=0).values

    def _counts(self, rule: str, scores: Tensor) -> Tensor:
        """What one rule wants, in the same range: the median of clamped counts is the clamped median."""
        return self._inner.run(head_count=written(rule, chosen_options(self)), prefer=OWN).count_heads(scores)
