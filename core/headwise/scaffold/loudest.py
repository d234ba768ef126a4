"""How much each head deserves to decide: its attention on the visual tokens that it likes best."""

from __future__ import annotations

import attrs
from torch import Tensor

from headwise import hookimpl


@attrs.frozen(eq=False)
class Loudest:
    """Mean attention on the ``k`` visual tokens a head likes best."""

    k: int = attrs.field(default=4, converter=int, validator=attrs.validators.ge(1))

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Scores (b, h) of attention (b, h, v); higher is better."""
        return attention.float().topk(min(self.k, attention.shape[-1]), dim=-1).values.mean(dim=-1)
