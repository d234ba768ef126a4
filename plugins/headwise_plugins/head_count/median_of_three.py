"""The median of gap, quality and contribution: the head count of FinePruner's dynamic head selection."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import whole_or_none
from headwise.recipe import OWN
from headwise.registry import Registry

RULES = ("score_gap", "quality_threshold", "cumulative_contribution")


@attrs.frozen(eq=False)
class MedianOfThree:
    """The median of what score_gap, quality_threshold and cumulative_contribution want, each with its defaults.

    The count stays within ``low`` and ``high`` (default 1 and the number of heads), and never exceeds the heads that
    are not vetoed. Equal scores give the contribution's count, or ``high`` where that is lower; one dominant head
    gives ``low``.
    """

    low: int | None = attrs.field(
        default=None,
        converter=whole_or_none,
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )
    high: int | None = attrs.field(
        default=None,
        converter=whole_or_none,
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )

    def __attrs_post_init__(self) -> None:
        if (self.low or 1) > (self.high or math.inf):
            raise ValueError(f"low={self.low} is above high={self.high}")

    @cached_property
    def _rules(self) -> tuple[Any, ...]:
        """The three rules by name, each within the same range: the median of clamped counts is the clamped median."""
        limits = {"low": self.low, "high": self.high}
        options = ",".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
        registry = Registry.installed("head_count")
        return tuple(registry.build(f"{rule}:{options}" if options else rule, prefer=OWN).plugin for rule in RULES)

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """One count per row (b,)."""
        wanted = torch.stack([rule.head_count(scores=scores) for rule in self._rules])
        return wanted.median(dim=0).values
