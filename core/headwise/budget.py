"""Budget arithmetic: average tokens processed, tokens kept, prefill FLOPs, KV bytes. Pure counting, no torch.

Conventions. *Processed* tokens of a layer are the visual tokens it computes on. A stage at layer K prunes before
layer K, so layers 0..K-1 still process everything. The average is over decoder layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from headwise.errors import BudgetError
from headwise.geometry import Geometry


@attrs.frozen(kw_only=True)
class Budget:
    """What a run may spend: an average of visual tokens processed per layer, or the tokens kept at the end.

    Exactly one is given, or neither where nothing is pruned. ``tokens`` and ``keep`` count the tokens of one image.
    """

    tokens: float | None = None
    keep: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.tokens is not None and self.keep is not None:
            raise BudgetError(f"both tokens={self.tokens:g} and keep={self.keep} are given; a run has one budget")
        if self.tokens is not None and not self.tokens > 0:
            raise BudgetError(f"an average of {self.tokens:g} tokens is not a budget; give a number above 0")
        if self.keep is not None and self.keep < 1:
            raise BudgetError(f"keep={self.keep} leaves no visual token; keep at least 1")

    @property
    def text(self) -> str:
        """The budget as it was given: ``tokens=64``, ``keep=16`` or ``everything``."""
        if self.tokens is not None:
            return f"tokens={self.tokens:g}"
        return "everything" if self.keep is None else f"keep={self.keep}"

    def one_stage(self, geometry: Geometry, layer: int) -> int:
        """Tokens a method keeps that prunes once, before ``layer``; raises BudgetError with the nearest budget.

        From A = (K * N + (L - K) * R) / L follows R = round((L * A - K * N) / (L - K)).
        """
        layers, everything = geometry.layers, geometry.visual_tokens
        if not 0 <= layer < layers:
            raise BudgetError(f"layer={layer} is not in 0..{layers - 1}, the decoder layers of {geometry.name}")
        if self.keep is not None:
            if self.keep > everything:
                raise BudgetError(
                    f"keep={self.keep} is more than the {everything} visual tokens of {geometry.name};"
                    f" give at most {everything}"
                )
            return self.keep
        if self.tokens is None:
            raise BudgetError("pruning needs a budget; give --tokens (average processed per layer) or --keep")
        smallest = (layer * everything + layers - layer) / layers
        if self.tokens > everything:
            raise BudgetError(
                f"tokens={self.tokens:g} is more than the {everything} visual tokens of {geometry.name};"
                f" give at most {everything}"
            )
        keep = round((layers * self.tokens - layer * everything) / (layers - layer))
        if keep < 1:
            raise BudgetError(
                f"tokens={self.tokens:g} cannot be met when pruning before layer {layer} of {layers}: the layers in"
                f" front of it process {everything} tokens each; the smallest feasible budget is tokens={smallest:.4g}"
            )
        return keep

    def staged(
        self, geometry: Geometry, layers: Sequence[int], counts: Callable[[float], Sequence[int]]
    ) -> tuple[int, ...]:
        """Tokens left by each stage of a method that prunes before several ``layers``, ascending.

        ``counts(x)`` gives the tokens left after each stage for x in 0..1, never fewer for a larger x: the method's own
        schedule, from its fewest to all. The x is found that meets this budget best; what rounding leaves over is made
        up by the last stages. Raises BudgetError, with the nearest budget, for what the schedule cannot meet.
        """
        _check_layers(geometry, layers)
        everything = geometry.visual_tokens
        if self.keep is None and self.tokens is None:
            raise BudgetError("pruning needs a budget; give --tokens (average processed per layer) or --keep")
        wanted = float(self.keep or self.tokens or 0)
        if wanted > everything:
            raise BudgetError(
                f"{self.text} is more than the {everything} visual tokens of {geometry.name}; give at most {everything}"
            )

        def reached(kept: Sequence[int]) -> float:
            if self.keep is not None:
                return kept[-1]
            return sum(processed_per_layer(geometry, list(zip(layers, kept, strict=True)))) / geometry.layers

        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if reached(counts(middle)) < wanted else (low, middle)
        nearest = min((tuple(counts(x)) for x in (low, high)), key=lambda kept: abs(reached(kept) - wanted))
        kept = _settled(nearest, wanted, reached)
        if abs(reached(kept) - wanted) > 1:
            where = ", ".join(map(str, layers))
            raise BudgetError(
                f"{self.text} cannot be met when pruning before layers {where} of {geometry.layers};"
                f" the nearest feasible budget is {'keep' if self.keep is not None else 'tokens'}={reached(kept):.4g}"
            )
        return kept


def _check_layers(geometry: Geometry, layers: Sequence[int]) -> None:
    before = -1
    for layer in layers:
        if not before < layer < geometry.layers:
            raise BudgetError(
                f"layers {', '.join(map(str, layers))} are not ascending within 0..{geometry.layers - 1},"
                f" the decoder layers of {geometry.name}"
            )
        before = layer


def _settled(kept: tuple[int, ...], wanted: float, reached: Callable[[Sequence[int]], float]) -> tuple[int, ...]:
    """Counts a token apart from ``kept``, if that comes closer: the last stage gives or takes first."""
    counts = list(kept)
    for place in reversed(range(len(counts))):
        while True:
            step = 1 if reached(counts) < wanted else -1
            changed = [*counts[:place], counts[place] + step, *counts[place + 1 :]]
            least = changed[place + 1] if place + 1 < len(changed) else 1
            most = changed[place - 1] if place else None
            closer = abs(reached(changed) - wanted) < abs(reached(counts) - wanted)
            if not closer or changed[place] < least or (most is not None and changed[place] > most):
                break
            counts = changed
    return tuple(counts)


def processed_per_layer(geometry: Geometry, stages: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Visual tokens each decoder layer processes, given (layer, keep) stages in ascending order of layer."""
    counts = [geometry.visual_tokens] * geometry.layers
    for layer, keep in stages:
        counts[layer:] = [keep] * (geometry.layers - layer)
    return tuple(counts)


FLOP_FORMULAS = {
    "gated": "n(2d^2 + 2d*d_kv) + 2n^2*d + 3ndm multiply-adds per layer (SparseVLM, PDrop; gated feed-forward)",
    "fastv": "n(2d^2 + 2d*d_kv) + 2n^2*d + 2ndm multiply-adds per layer (FastV; two feed-forward matrices)",
}
"""The two conventions of the literature. Their absolute figures differ, their ratios hardly do."""


def layer_flops(geometry: Geometry, tokens: int, formula: str = "gated") -> int:
    """Multiply-adds of one decoder layer's prefill over ``tokens`` tokens, by a formula of FLOP_FORMULAS."""
    if formula not in FLOP_FORMULAS:
        raise BudgetError(f"unknown FLOP formula {formula!r}; known formulas: {', '.join(FLOP_FORMULAS)}")
    matrices = 3 if formula == "gated" else 2
    query_width = geometry.heads * geometry.head_dim
    kv_width = geometry.kv_heads * geometry.head_dim
    projections = 2 * geometry.hidden * (query_width + kv_width)
    feed_forward = matrices * geometry.hidden * geometry.intermediate
    return tokens * (projections + feed_forward) + 2 * tokens * tokens * query_width


def prefill_flops(geometry: Geometry, visual: Sequence[int], text: int = 0, formula: str = "gated") -> int:
    """Multiply-adds of the decoder stack's prefill: ``visual`` tokens per layer, and ``text`` tokens in all of them."""
    return sum(layer_flops(geometry, count + text, formula) for count in visual)


def kv_bytes(geometry: Geometry, visual: Sequence[int], text: int = 0, itemsize: int = 2) -> int:
    """Bytes of the KV cache after prefill: keys and values of every layer, ``itemsize`` bytes each (2 = fp16)."""
    per_token = 2 * geometry.kv_heads * geometry.head_dim * itemsize
    return sum((count + text) * per_token for count in visual)
