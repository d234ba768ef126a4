"""The length of the text decides who asks: little text is used whole, long text by attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import attrs
import torch
from torch import Tensor

from headwise import Layout, Queries, hookimpl
from headwise.numbers import whole
from headwise.recipe import OWN
from headwise.registry import Registry


@attrs.frozen(eq=False)
class AdaptiveByLength:
    """Another query strategy for each prompt, by the number of text tokens after its image.

    None: last_token. Up to ``short``: text_tokens_only. Up to ``medium``: weighted_recent. More: attention_weighted.
    A LLaVA prompt's question and template together exceed ten tokens, so in practice it gets attention_weighted.
    """

    short: int = attrs.field(default=3, converter=whole, validator=attrs.validators.ge(0))
    medium: int = attrs.field(default=10, converter=whole, validator=attrs.validators.ge(0))

    def __attrs_post_init__(self) -> None:
        if self.short > self.medium:
            raise ValueError(f"short={self.short} is above medium={self.medium}")

    @hookimpl
    def query_selection(self, layout: Layout) -> Queries:
        """The queries each row's strategy asks, side by side."""
        return _merged([self._queries(layout.rows([row])) for row in range(len(layout))])

    def _queries(self, row: Layout) -> Queries:
        queries: Queries = self._strategies[self._choice(row.text(0).size)].query_selection(layout=row)
        return queries

    def _choice(self, length: int) -> str:
        if length == 0:
            return "last_token"
        if length <= self.short:
            return "text_tokens_only"
        return "weighted_recent" if length <= self.medium else "attention_weighted"

    @cached_property
    def _strategies(self) -> dict[str, Any]:
        registry = Registry.installed("query_selection")
        names = ("last_token", "text_tokens_only", "weighted_recent", "attention_weighted")
        return {name: registry.build(name, prefer=OWN).plugin for name in names}


def _merged(rows: Sequence[Queries]) -> Queries:
    """One batch from batches of one row each; weights become a function, since those of some rows are one."""
    return Queries.of([row.positions[0] for row in rows], partial(_weights, rows))


def _weights(rows: Sequence[Queries], attention: Tensor) -> Tensor:
    """Attention (b, h, q, v) -> weights (b, q), each row by its own rule over the queries it asked."""
    weights = attention.new_zeros(attention.shape[0], attention.shape[2])
    for weight, queries, seen in zip(weights, rows, attention, strict=True):
        asked = queries.positions.shape[1]
        if callable(queries.weights):
            weight[:asked] = queries.weights(seen[None, :, :asked])[0]
        else:
            weight[:asked] = torch.from_numpy(queries.weights[0])
    return weights
