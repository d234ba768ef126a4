"""How much attention a head puts on its few favourite visual tokens.

Among the head scores of LLaVA-FinePruner-Head, whose second softmax over attention is left out here.
"""

from __future__ import annotations

import attrs
from attrs import validators
from torch import Tensor

from headwise import hookimpl
from headwise.numbers import whole


@attrs.frozen(eq=False)
class TopKSum:
    """Attention on the ``k`` visual tokens a head likes best, in 0..1; between max_attention (k=1) and sum (k=v).

    ``k`` is at least 1; where the image has fewer tokens, all of them count.
    """

    k: int = attrs.field(default=10, converter=whole, validator=validators.ge(1))

    @hookimpl
    def head_scoring(self, attention: Tensor) -> Tensor:
        """Sum of the k largest over visual tokens: (b, h, v) -> (b, h)."""
        return attention.float().topk(min(self.k, attention.shape[-1]), dim=-1).values.sum(dim=-1)
