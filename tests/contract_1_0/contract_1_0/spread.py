"""Scores heads; it takes every argument that the hook had in contract 1.0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from torch import Tensor

from headwise import hookimpl


@attrs.frozen(eq=False)
class Spread:
    """Largest minus smallest attention of a head, noted by its best."""

    hook_contract = "1.0"

    power: float = attrs.field(default=1.0, converter=float, validator=attrs.validators.gt(0))

    @hookimpl
    def head_scoring(
        self,
        attention: Tensor,
        target: int | None,
        share: float,
        seeds: Tensor,
        note: Callable[[str, Sequence[object]], None],
    ) -> Tensor:
        """Scores (b, h)."""
        assert target is None or target >= 1
        assert 0 < share <= 1
        assert seeds.shape[0] == attention.shape[0]
        wide = attention.float().amax(dim=-1) - attention.float().amin(dim=-1)
        note("widest", [float(row.max()) for row in wide])
        return wide**self.power
