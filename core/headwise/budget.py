"""Budget arithmetic: average tokens processed, tokens kept, prefill FLOPs, KV bytes. Pure counting, no torch.

Conventions. *Processed* tokens of a layer are the visual tokens it computes on. A stage at layer K prunes before
layer K, so layers 0..K-1 still process everything. The average is over decoder layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from headwise.errors import BudgetError
from headwise.geometry import Geometry
from headwise.hints import within
from headwise.numbers import number, whole

Number = TypeVar("Number", int, float)


def _tokens(value: float | str | None) -> float | None:
    return _judged("tokens", number, value)


def _keep(value: int | str | None) -> int | None:
    return _judged("keep", whole, value)


def _judged(name: str, kind: Callable[[object], Number], value: Number | str | None) -> Number | None:
    """The number that was given; raises BudgetError for what is none, before a strategy could be blamed for it."""
    try:
        read = None if value is None else kind(value)
    except ValueError as error:
        raise BudgetError(f"{name} is no budget: {error}") from error
    return read if isinstance(value, str) else value


@attrs.frozen(kw_only=True)
class Budget:
    """What a run may spend: an average of visual tokens processed per layer, or the tokens kept at the end.

    Exactly one is given, or neither where nothing is pruned. ``tokens`` and ``keep`` count the tokens of one image.
    Raises BudgetError for both at once, and for a number that leaves no token.
    """

    tokens: float | None = attrs.field(default=None, converter=_tokens)
    keep: int | None = attrs.field(default=None, converter=_keep)

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
            raise BudgetError(f"layer={layer} is not in {within(0, layers - 1)}, the decoder layers of {geometry.name}")
        asked = self._asked(geometry)
        if self.keep is not None:
            return self.keep
        smallest = (layer * everything + layers - layer) / layers
        keep = round((layers * asked - layer * everything) / (layers - layer))
        if keep < 1:
            raise BudgetError(
                f"{self.text} cannot be met when pruning before layer {layer} of {layers}: the layers in"
                f" front of it process {everything} tokens each; the smallest feasible budget is tokens={smallest:.4g}"
            )
        return keep

    def staged(
        self, geometry: Geometry, layers: Sequence[int], counts: Callable[[float], Sequence[int]]
    ) -> tuple[int, ...]:
        """Tokens left by each stage of a method that prunes before several ``layers``, ascending.

        ``counts(x)`` gives the tokens left after each stage for x in 0..1, from the method's fewest to all: its own
        schedule, whose average and last count never fall where x grows. The smallest x that meets the budget is used,
        and the last stages drop any surplus. An average is met within a token, ``keep`` exactly. Raises BudgetError,
        with the nearest budget, for what the schedule cannot meet.
        """
        _check_layers(geometry, layers)
        asked = self._asked(geometry)
        full, weights = _weights(geometry, layers, last_only=self.keep is not None)

        def spent(kept: Sequence[int]) -> float:
            return full + sum(weight * count for weight, count in zip(weights, kept, strict=True))

        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if spent(counts(middle)) < asked else (low, middle)
        kept, least = list(counts(high)), 1
        for place in reversed(range(len(kept))):
            excess = round((spent(kept) - asked) / weights[place]) if weights[place] else 0
            least = kept[place] = max(least, kept[place] - max(0, excess))
        if abs(spent(kept) - asked) > (1 if self.keep is None else 0):
            raise BudgetError(
                f"{self.text} cannot be met when pruning before layers {', '.join(map(str, layers))} of"
                f" {geometry.layers}; the nearest feasible budget is"
                f" {'tokens' if self.keep is None else 'keep'}={spent(kept):.4g}"
            )
        return tuple(kept)

    def _asked(self, geometry: Geometry) -> float:
        """The number that is given; raises BudgetError where there is none, or one above all tokens of an image."""
        asked = self.tokens if self.keep is None else self.keep
        if asked is None:
            raise BudgetError("pruning needs a budget; give --tokens (average processed per layer) or --keep")
        everything = geometry.visual_tokens
        if everything == 0:
            raise BudgetError(f"{self.text}: {geometry.name} reads text alone, so there are no visual tokens to prune")
        if asked > everything:
            raise BudgetError(
                f"{self.text} is more than the {everything} visual tokens of {geometry.name}; give at most {everything}"
            )
        return asked


def _check_layers(geometry: Geometry, layers: Sequence[int]) -> None:
    before = -1
    for layer in layers:
        if not before < layer < geometry.layers:
            raise BudgetError(
                f"layers {', '.join(map(str, layers))} are not ascending within {within(0, geometry.layers - 1)},"
                f" the decoder layers of {geometry.name}"
            )
        before = layer


def _weights(geometry: Geometry, layers: Sequence[int], *, last_only: bool) -> tuple[float, list[float]]:
    """How a budget follows from the counts after each stage: so much in any case, and this much per token of each.

    An average counts every layer's tokens, those in front of the first stage in any case; ``keep`` the last stage's.
    """
    if last_only:
        return 0.0, [0.0] * (len(layers) - 1) + [1.0]
    widths = [after - layer for layer, after in zip(layers, (*layers[1:], geometry.layers), strict=True)]
    return geometry.visual_tokens * layers[0] / geometry.layers, [width / geometry.layers for width in widths]


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
    """Multiply-adds of one decoder layer's prefill over ``tokens`` tokens, by a formula of FLOP_FORMULAS.

    Raises BudgetError for a formula that is not known.
    """
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
