"""The same number of heads for every prompt: the 8, 16 or 24 of 32 in FinePruner's tables."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from headwise import StrategyError, hookimpl
from headwise.hints import number_of, within
from headwise.numbers import number_or_none, whole_or_none


@attrs.frozen(eq=False)
class Fixed:
    """A fixed number of heads: ``heads`` counts them, ``share`` is a share of the model's heads (default 0.5).

    Give one of the two. A share is rounded to the nearest count, halves up, and keeps at least one head. More heads
    than the model has is a StrategyError.
    """

    heads: int | None = attrs.field(
        default=None,
        converter=whole_or_none,
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )
    share: float | None = attrs.field(
        converter=number_or_none,
        validator=attrs.validators.optional([attrs.validators.gt(0), attrs.validators.le(1)]),
    )

    @share.default
    def _half_unless_counted(self) -> float | None:
        return 0.5 if self.heads is None else None

    def __attrs_post_init__(self) -> None:
        if self.heads is not None and self.share is not None:
            raise ValueError(f"heads={self.heads} and share={self.share:g} are both given; give one of them")

    def target(self, heads: int) -> int:
        """How many of ``heads`` are kept; raises StrategyError when the model has fewer than wanted."""
        if self.heads is None:
            assert self.share is not None
            return max(1, int(self.share * heads + 0.5))
        if self.heads > heads:
            raise StrategyError(
                f"head_count strategy 'fixed:heads={self.heads}' wants {number_of(self.heads, 'head')}, but this model"
                f" has {number_of(heads, 'head')}; give heads={within(1, heads)}"
            )
        return self.heads

    @hookimpl
    def head_count(self, scores: Tensor) -> Tensor:
        """The same count for every row (b,)."""
        batch, heads = scores.shape
        return torch.full((batch,), self.target(heads), dtype=torch.int64, device=scores.device)
