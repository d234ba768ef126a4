"""The shape of a model: the counts from which budgets, FLOPs and bytes follow. No weights, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from headwise.errors import ModelError
from headwise.hints import did_you_mean

_count = attrs.validators.ge(1)

ANY_SIZE = 576
"""Visual tokens of the image that budgets are given for, in models whose images have as many as their size asks for."""


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


def _llava(name: str, layers: int, heads: int, intermediate: int, visual_tokens: int) -> Geometry:
    return Geometry(
        name=name, layers=layers, heads=heads, kv_heads=heads, head_dim=128, hidden=128 * heads,
        intermediate=intermediate, visual_tokens=visual_tokens,
    )  # fmt: skip


def _qwen_vl(name: str, layers: int, heads: int, kv_heads: int, intermediate: int) -> Geometry:
    return Geometry(
        name=name, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=128, hidden=128 * heads,
        intermediate=intermediate, visual_tokens=ANY_SIZE,
    )  # fmt: skip


def _language(
    name: str, layers: int, heads: int, head_dim: int, intermediate: int, *, kv_heads: int | None = None, gated: bool
) -> Geometry:
    return Geometry(
        name=name, layers=layers, heads=heads, kv_heads=kv_heads or heads, head_dim=head_dim, hidden=heads * head_dim,
        intermediate=intermediate, visual_tokens=0, gated=gated,
    )  # fmt: skip


SHAPES = {
    shape.name: shape
    for shape in (
        _llava("llava-1.5-7b", 32, 32, 11008, 576),
        _llava("llava-1.5-13b", 40, 40, 13824, 576),
        _llava("llava-next-7b", 32, 32, 11008, 2880),
        _llava("llava-next-13b", 40, 40, 13824, 2880),
        _llava("llava-1.6-vicuna-7b", 32, 32, 11008, 2880),
        _qwen_vl("qwen2.5-vl-3b", 36, 16, 2, 11008),
        _qwen_vl("qwen2.5-vl-7b", 28, 28, 4, 18944),
        Geometry(
            name="demo-llava", layers=12, heads=8, kv_heads=8, head_dim=16, hidden=128, intermediate=384,
            visual_tokens=144,
        ),
        _language("pythia-2.8b", 32, 32, 80, 10240, gated=False),
        _language("pythia-70m", 6, 8, 64, 2048, gated=False),
        _language("smollm2-135m", 30, 9, 64, 1536, kv_heads=3, gated=True),
        _language("llama-3.1-8b", 32, 32, 128, 14336, kv_heads=8, gated=True),
        _language("demo-pythia", 6, 8, 24, 768, gated=False),
    )
}  # fmt: skip
"""Shapes known by name, so that a budget can be planned without weights.

An image that a model cuts into crops has the tokens of as many pictures as it can become, the small one of it all
included (:func:`most_pictures`): a LLaVA-NeXT image 5 * 576 = 2880, as papers count in their tables. That is what a
budget is given for, by name, by folder and attached: ``tokens=640`` is an average of 640 of 2880, and a smaller image
gets its share.
"""


def most_pictures(pinpoints: Sequence[Sequence[int]], side: int) -> int:
    """Pictures of ``side`` pixels that an image becomes at most, cut to one of ``pinpoints`` (height, width): >= 1."""
    return 1 + max((height // side) * (width // side) for height, width in pinpoints)


def shape(name: str) -> Geometry:
    """The geometry known as ``name``; raises ModelError with the names there are."""
    if name not in SHAPES:
        raise ModelError(f"unknown shape {name!r}{did_you_mean(name, SHAPES)}; known shapes: {', '.join(SHAPES)}")
    return SHAPES[name]
