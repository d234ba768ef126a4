"""The shape of a model: the counts from which budgets, FLOPs and bytes follow. No weights, no torch."""

from __future__ import annotations

import attrs

_count = attrs.validators.ge(1)


@attrs.frozen(kw_only=True)
class Geometry:
    """Counts of one model: decoder layers, heads, widths, and the visual tokens one image gives.

    ``gated`` says whether the feed-forward block has three matrices (Llama) or two. ``sliding``: the model's own
    sliding window in each layer, None where its attention is full; empty where it is full everywhere.
    """

    name: str
    layers: int = attrs.field(validator=_count)
    heads: int = attrs.field(validator=_count)
    kv_heads: int = attrs.field(validator=_count)
    head_dim: int = attrs.field(validator=_count)
    hidden: int = attrs.field(validator=_count)
    intermediate: int = attrs.field(validator=_count)
    visual_tokens: int = attrs.field(validator=attrs.validators.ge(0))
    gated: bool = True
    sliding: tuple[int | None, ...] = ()
