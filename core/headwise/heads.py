"""What is known about the attention heads of a model: statistics in, labels and profiles out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

from headwise.errors import DataError, HeadwiseError, StrategyError
from headwise.geometry import Geometry
from headwise.reading import JsonObject, json_of, shortened, shown, text_of

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
"""Windows at which a profile keeps the attention mass of each head."""

LARGEST = 2**30  # bytes
_HINT = "make one with `headwise classify-heads --out FILE`"


@attrs.frozen(eq=False, kw_only=True)
class AttentionShares:
    """Where attention goes, averaged over the rows of each of k segments of text; l layers, h heads.

    ``sink`` (k, l, h): share on the first ``sinks`` tokens. ``distance`` (k, l, h, n): share on the token ``d`` back,
    d = 0 being the query itself, sinks excluded; ``sink + distance.sum(-1)`` is 1. ``entropy`` (k, l, h): mean entropy
    of the rows over all keys, as a share of the largest possible. ``rows``: query tokens in each segment.
    """

    sinks: int
    sink: Floats
    distance: Floats
    entropy: Floats
    rows: int

    def within(self, window: int) -> Floats:
        """Share on the last ``window`` tokens, sinks excluded: (k, l, h)."""
        return np.asarray(self.distance[..., :window].sum(axis=-1))


class HeadStatistics(Protocol):
    """Measurements of the heads of one model on one text, made only when asked for."""

    geometry: Geometry

    def attention(self, sinks: int) -> AttentionShares:
        """Where attention goes, with the first ``sinks`` tokens counted apart."""
        ...

    def copying(self) -> tuple[Floats, Floats]:
        """On random tokens that repeat: attention on the token after the previous copy; mean and SE, (l, h) each."""
        ...

    def sensitivity(self, sinks: int, window: int) -> tuple[Floats, Floats]:
        """Rise of the loss (nats per token) when one head alone sees ``sinks`` and ``window``: mean and SE, (l, h)."""
        ...


@attrs.frozen(eq=False, kw_only=True)
class HeadLabels:
    """A class per head and how sure it is.

    ``labels`` int (l, h) indexes ``names``; ``confidence`` (l, h) is in 0..1. Where a strategy gives a real
    probability for every class, ``probabilities`` (l, h, classes) holds it, sums to 1, and confidence is its maximum.
    ``statistics``: what the labels were made from, name -> (l, h).
    """

    names: tuple[str, ...]
    labels: Integers
    confidence: Floats
    probabilities: Floats | None = None
    statistics: Mapping[str, Floats] = attrs.field(factory=dict)

    @classmethod
    def most_probable(
        cls, names: tuple[str, ...], probabilities: Floats, statistics: Mapping[str, Floats] | None = None
    ) -> HeadLabels:
        """The most probable class of each head, by probabilities (l, h, classes); of equal ones the first."""
        return cls(
            names=names,
            labels=probabilities.argmax(axis=-1).astype(np.int64),
            confidence=probabilities.max(axis=-1),
            probabilities=probabilities,
            statistics=statistics or {},
        )

    def counts(self) -> dict[str, int]:
        """Class -> number of heads."""
        return {name: int((self.labels == index).sum()) for index, name in enumerate(self.names)}

    def per_head(self, values: Mapping[str, int | None], who: str) -> Integers:
        """The value of each head's class, (l, h); StrategyError where strategy ``who`` has none for a class."""
        for name, heads in self.counts().items():
            if heads and values.get(name) is None:
                remedy = f"give the option {name}=N" if name in values else f"it knows {', '.join(values)}"
                raise StrategyError(f"{who} is given nothing for the {heads} heads of class {name!r}; {remedy}")
        return np.array([values.get(name) or 0 for name in self.names], dtype=np.int64)[self.labels]


@attrs.frozen(eq=False, kw_only=True)
class HeadProfile:
    """Head labels of one model, as KV-eviction strategies get them and as ``profile.json`` keeps them.

    ``mass`` (l, h, windows): share of attention on the last ``windows`` tokens, sinks excluded; ``strategy`` is the
    canonical text of the classification, ``text`` says what it was measured on.
    """

    model: str
    labels: HeadLabels
    windows: tuple[int, ...] = ()
    mass: Floats | None = None
    strategy: str = ""
    text: str = ""

    def plain(self) -> JsonObject:
        """The profile as JSON data: what ``save`` writes."""
        labels, (layers, heads) = self.labels, self.labels.labels.shape
        return {
            "schema": 1,
            "model": self.model,
            "strategy": self.strategy,
            "text": self.text,
            "layers": layers,
            "heads": heads,
            "classes": list(labels.names),
            "counts": labels.counts(),
            "labels": labels.labels.tolist(),
            "confidence": _rounded(labels.confidence),
            "probabilities": _rounded(labels.probabilities),
            "statistics": {name: _rounded(values) for name, values in labels.statistics.items()},
            "windows": list(self.windows),
            "mass": _rounded(self.mass),
        }

    @classmethod
    def from_plain(cls, content: JsonObject, where: str = "the data") -> HeadProfile:
        """The profile that was made plain; raises DataError naming ``where`` it came from and what is wrong."""
        try:
            _check_kinds(content)
            labels = HeadLabels(
                names=tuple(content["classes"]),
                labels=np.array(content["labels"], dtype=np.int64),
                confidence=np.array(content["confidence"], dtype=np.float64),
                probabilities=_floats(content["probabilities"]),
                statistics={name: np.array(values, float) for name, values in content["statistics"].items()},
            )
            mass = _floats(content["mass"])
            check_labels(labels, (content["layers"], content["heads"]))
            measured = [*labels.statistics.values(), *([] if mass is None else [mass])]
            if not all(np.isfinite(values).all() for values in measured):
                raise ValueError("a statistic or a mass is no finite number")
            return cls(
                model=content["model"],
                labels=labels,
                windows=tuple(content["windows"]),
                mass=mass,
                strategy=content["strategy"],
                text=content["text"],
            )
        except (ValueError, KeyError, TypeError, OverflowError, HeadwiseError) as error:
            raise DataError(f"{where} is not a head profile ({shortened(str(error))}); {_HINT}") from error

    def save(self, path: Path) -> None:
        """Write the profile as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.plain()) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> HeadProfile:
        """Read what ``save`` wrote; raises DataError with the path and what is wrong."""
        try:
            text = text_of(Path(path), largest=LARGEST)
        except DataError as error:
            raise DataError(f"profile {error}; {_HINT}") from error
        try:
            content: JsonObject = json_of(text, "it")
        except DataError as error:
            raise DataError(f"{path} is not a head profile ({error}); {_HINT}") from error
        return cls.from_plain(content, str(path))

    def check(self, geometry: Geometry) -> None:
        """Raise DataError unless the profile is of a model of this shape."""
        wanted = (geometry.layers, geometry.heads)
        if self.labels.labels.shape != wanted:
            found = self.labels.labels.shape
            raise DataError(
                f"the profile of {shown(self.model)} has {found[0]} layers x {found[1]} heads and"
                f" {geometry.name} has {wanted[0]} x {wanted[1]}; make one of this model with `headwise classify-heads`"
            )


def _check_kinds(content: JsonObject) -> None:
    """Raise ValueError where a field of a plain profile is of another kind."""
    for key in ("model", "strategy", "text"):
        if not isinstance(content[key], str):
            raise ValueError(f"{key} is no text: {content[key]!r}")
    names, windows, layers = content["classes"], content["windows"], content["labels"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ValueError(f"classes are no list of names: {names!r}")
    if not (isinstance(windows, list) and all(_is_count(window) for window in windows)):
        raise ValueError(f"windows are no list of whole numbers above 0: {windows!r}")
    if not isinstance(content["statistics"], dict):
        raise ValueError(f"statistics are no object: {content['statistics']!r}")
    if not all(isinstance(layer, list) and all(type(label) is int for label in layer) for layer in layers):
        raise ValueError("labels are not whole numbers, layer by layer")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31


def required(profile: HeadProfile | None, who: str) -> HeadProfile:
    """The profile that strategy ``who`` cannot do without; raises DataError that says how to make one."""
    if profile is None:
        raise DataError(
            f"{who} needs a head profile; make one with `headwise classify-heads --out profile.json` and give it with"
            " --profile profile.json (in Python: Recipe.of(..., profile='profile.json'))"
        )
    return profile


def check_labels(labels: HeadLabels, shape: tuple[int, int]) -> None:
    """Raise DataError unless labels, confidences and probabilities are complete and in range for (layers, heads)."""
    if labels.labels.shape != shape or labels.confidence.shape != shape:
        raise DataError(f"labels {labels.labels.shape} and confidence {labels.confidence.shape} are not {shape}")
    if labels.labels.min() < 0 or labels.labels.max() >= len(labels.names):
        raise DataError(f"a label is outside 0..{len(labels.names) - 1}, the classes {', '.join(labels.names)}")
    if not ((labels.confidence >= 0) & (labels.confidence <= 1 + 1e-6)).all():
        raise DataError("a confidence is outside 0..1")
    if labels.probabilities is not None:
        if labels.probabilities.shape != (*shape, len(labels.names)):
            raise DataError(f"probabilities of shape {labels.probabilities.shape} do not fit {shape} and the classes")
        # NaN fails this, because every comparison with NaN is False.
        if not ((abs(labels.probabilities.sum(axis=-1) - 1) <= 1e-3).all() and (labels.probabilities >= 0).all()):
            raise DataError("the probabilities of a head are no shares that sum to 1")


def _rounded(values: Floats | None) -> list[object] | None:
    """Six significant digits: enough for every use, half the file."""
    if values is None:
        return None
    flat = [float(f"{value:.6g}") for value in values.ravel()]
    return list(np.array(flat).reshape(values.shape).tolist())


def _floats(values: object) -> Floats | None:
    return None if values is None else np.array(values, dtype=np.float64)
