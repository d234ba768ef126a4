"""The length of the text decides who asks: little text is used whole, long text by attention.

Among the choices of query tokens that LLaVA-FinePruner-Head compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs
from torch import Tensor

from headwise import Layout, Queries, hookimpl
from headwise.composition import Inner
from headwise.numbers import whole
from headwise.pipeline import Pipeline
from headwise.recipe import OWN


@attrs.frozen(eq=False)
class AdaptiveByLength:
    """Another query strategy for each prompt, by the number of text tokens after its image.

    None: last_token. Up to ``short``: text_tokens_only. Up to ``medium``: weighted_recent. More: attention_weighted.
    A LLaVA prompt's question and template together exceed ten tokens, so in practice it gets attention_weighted.
    """

    short: int = attrs.field(default=3, converter=whole, validator=attrs.validators.ge(0))
    medium: int = attrs.field(default=10, converter=whole, validator=attrs.validators.ge(0))
    _inner: Inner = attrs.field(init=False, factory=Inner)

    def __attrs_post_init__(self) -> None:
        if self.short > self.medium:
            raise ValueError(f"short={self.short} is above medium={self.medium}")

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """The queries each row's strategy asks, side by side; their weights follow from attention."""
        runs = [self._inner.run(query_selection=self._choice(layout, row), prefer=OWN) for row in range(len(layout))]
        rows = [run.queries(layout.rows([row])) for row, run in enumerate(runs)]
        return Queries.of([queries.positions[0] for queries in rows], partial(_weights, runs, rows))

    def _choice(self, layout: Layout, row: int) -> str:
        length = layout.text(row).size
        if length == 0:
            return "last_token"
        if length <= self.short:
            return "text_tokens_only"
        return "weighted_recent" if length <= self.medium else "attention_weighted"


def _weights(runs: Sequence[Pipeline], rows: Sequence[Queries], attention: Tensor) -> Tensor:
    """Attention (b, h, q, v) -> weights (b, q), each row by its own rule over the queries it asked."""
    weights = attention.new_zeros(attention.shape[0], attention.shape[2])
    for weight, run, queries, seen in zip(weights, runs, rows, attention, strict=True):
        asked = queries.positions.shape[1]
        weight[:asked] = run.query_weights(seen[None, :, :asked], queries)[0]
    return weights
