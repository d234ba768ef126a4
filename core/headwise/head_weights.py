"""Static weights of the attention heads of a model: what `headwise calibrate` measures and ``calibrated`` prunes by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import numpy as np

from headwise.errors import DataError
from headwise.geometry import Geometry
from headwise.heads import Floats
from headwise.reading import JsonObject, json_of, shortened, shown, text_of

LARGEST = 2**28  # bytes
_HINT = "make one with `headwise calibrate --out FILE`"


@attrs.frozen(eq=False, kw_only=True)
class HeadWeights:
    """A weight for every head of one model, as ``token_pruning`` strategies use and ``weights.json`` keeps them.

    ``weights`` (l, h): a head that matters more has a larger one; NaN throughout a layer that was not measured.
    ``statistics``: what they were made from, name -> (l, h). ``source``: where they were measured, plain data.
    """

    model: str
    weights: Floats
    statistics: Mapping[str, Floats] = attrs.field(factory=dict)
    source: JsonObject = attrs.field(factory=dict)

    def save(self, path: Path) -> None:
        """Write the weights as JSON."""
        layers, heads = self.weights.shape
        content = {
            "schema": 1,
            "model": self.model,
            "layers": layers,
            "heads": heads,
            "weights": _plain(self.weights),
            "statistics": {name: _plain(values) for name, values in self.statistics.items()},
            "source": dict(self.source),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> HeadWeights:
        """Read what ``save`` wrote; raises DataError with the path and what is wrong."""
        try:
            text = text_of(Path(path), largest=LARGEST)
        except DataError as error:
            raise DataError(f"head weights {error}; {_HINT}") from error
        try:
            content: JsonObject = json_of(text, "it")
            shape = content["layers"], content["heads"]
            if not (isinstance(content["model"], str) and isinstance(content["source"], dict)):
                raise ValueError("its model is no text, or its source no object")
            return cls(
                model=content["model"],
                weights=_floats(content["weights"], shape),
                statistics={name: _floats(values, shape) for name, values in content["statistics"].items()},
                source=content["source"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise DataError(f"{path} is not a file of head weights ({shortened(str(error))}); {_HINT}") from error

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of a SHA-256 over the weights, as far as a file keeps them."""
        return hashlib.sha256(json.dumps(_plain(self.weights)).encode()).hexdigest()[:16]

    def check(self, geometry: Geometry) -> None:
        """Raise DataError unless the weights are of a model of this shape."""
        found, wanted = self.weights.shape, (geometry.layers, geometry.heads)
        if found != wanted:
            raise DataError(
                f"the head weights of {shown(self.model)} are of {found[0]} layers x {found[1]} heads and"
                f" {geometry.name} has {wanted[0]} x {wanted[1]}; make some of this model with `headwise calibrate`"
            )

    def of_layer(self, layer: int) -> Floats:
        """Weights (h,) of one layer's heads, not below 0, their sum 1; all alike where no head has any.

        Raises DataError where the layer was not measured.
        """
        weights = self.weights[layer]
        if np.isnan(weights).any():
            measured = ", ".join(map(str, np.flatnonzero(~np.isnan(self.weights).any(axis=1)))) or "none"
            raise DataError(
                f"the head weights of {shown(self.model)} leave out layer {layer} (measured: {measured});"
                f" measure it with `headwise calibrate --layers {layer}`"
            )
        positive = weights.clip(min=0)
        total = positive.sum()
        return positive / total if total > 0 else np.full_like(positive, 1 / len(positive))


def _plain(values: Floats) -> list[list[float] | None]:
    """Six significant digits; None for a layer that was not measured."""
    return [None if np.isnan(row).any() else [float(f"{value:.6g}") for value in row] for row in values]


def _floats(rows: Iterable[Iterable[float] | None], shape: tuple[int, int]) -> Floats:
    values = np.array([[np.nan] * shape[1] if row is None else row for row in rows], dtype=np.float64)
    if values.shape != shape:
        raise ValueError(f"it says {shape[0]} layers x {shape[1]} heads and holds an array {values.shape}")
    if np.isinf(values).any():
        raise ValueError("a number in it is infinite")
    if (np.isnan(values).any(axis=1) != np.isnan(values).all(axis=1)).any():
        raise ValueError("a layer in it was measured in part; null stands for a whole layer")
    return values
