"""Laws of head classification."""

from __future__ import annotations

from typing import TypeVar

import attrs
import numpy as np
import numpy.typing as npt
import torch

from headwise.geometry import Geometry
from headwise.heads import AttentionShares, Floats, HeadLabels, Integers
from headwise.testing.samples import Sample
from headwise.testing.subject import Subject

Kind = TypeVar("Kind", bound=np.generic)

SEGMENTS = 8
"""Segments of the made-up text."""


@attrs.define(eq=False)
class FakeStatistics:
    """Made-up measurements (:class:`headwise.heads.HeadStatistics`), drawn from a sample; laws rearrange the arrays.

    Rows of the sample are layers, ``visual`` sets the length of the text. ``sink`` (k, l, h); ``distance``
    (k, l, h, n) sums to 1 beside it; ``entropy`` (k, l, h); ``copies`` and ``rises`` are mean and SE, (2, l, h).
    """

    sink: Floats
    distance: Floats
    entropy: Floats
    copies: Floats
    rises: Floats

    @classmethod
    def of(cls, sample: Sample) -> FakeStatistics:
        """Heads of every kind: how far they look, how much they look at sinks, how much all that varies."""
        rng, shape = sample.rng, (SEGMENTS, sample.rows, sample.heads)
        tokens = 8 * sample.visual
        reach = np.exp(rng.uniform(0, np.log(tokens), shape[1:])) * np.exp(rng.normal(0, 0.2, shape))
        logits = -np.arange(tokens) / reach[..., None]
        if sample.kind != "diffuse":
            logits = logits + rng.normal(0, 3, (*shape[1:], tokens))
        distance = np.exp(logits - logits.max(axis=-1, keepdims=True))
        if sample.kind == "sparse":
            distance *= rng.random((*shape[1:], tokens)) < 0.1
            distance[..., 0] += 1e-3
        sink = np.clip(rng.uniform(0, 1, shape[1:]) + rng.normal(0, 0.05, shape), 0, 1)
        distance *= ((1 - sink) / distance.sum(axis=-1))[..., None]
        entropy = np.clip(rng.uniform(0, 1, shape[1:]) + rng.normal(0, 0.05, shape), 0, 1)
        copies = np.stack([rng.beta(0.3, 2, shape[1:]), rng.exponential(0.03, shape[1:])])
        rises = np.stack([rng.normal(0.001, 0.002, shape[1:]), rng.exponential(0.001, shape[1:])])
        return cls(sink, distance, entropy, copies, rises)

    @property
    def geometry(self) -> Geometry:
        """As many layers and heads as the arrays have."""
        _, layers, heads = self.sink.shape
        return Geometry(
            name="made up", layers=layers, heads=heads, kv_heads=heads, head_dim=8, hidden=8 * heads,
            intermediate=16 * heads, visual_tokens=0,
        )  # fmt: skip

    def attention(self, sinks: int) -> AttentionShares:
        """Where attention goes; without sinks, what went there is on the query itself."""
        sink, distance = self.sink, self.distance
        if sinks == 0:
            distance = distance.copy()
            distance[..., 0] += sink
            sink = np.zeros_like(sink)
        return AttentionShares(sinks=sinks, sink=sink, distance=distance, entropy=self.entropy, rows=64)

    def copying(self) -> tuple[Floats, Floats]:
        """Mean and SE, (l, h) each."""
        return self.copies[0], self.copies[1]

    def sensitivity(self, sinks: int, window: int) -> tuple[Floats, Floats]:
        """Mean and SE, (l, h) each, whatever the window."""
        return self.rises[0], self.rises[1]

    def rearranged(self, axis: int, order: Integers) -> FakeStatistics:
        """Segments (axis 0), layers (1) or heads (2) in another order, in every measurement that has them."""
        per_segment = {name: getattr(self, name).take(order, axis) for name in ("sink", "distance", "entropy")}
        if axis == 0:
            return attrs.evolve(self, **per_segment)
        return attrs.evolve(
            self, **per_segment, copies=self.copies.take(order, axis), rises=self.rises.take(order, axis)
        )


def complete_and_in_range(subject: Subject, sample: Sample) -> None:
    """Labels, confidences and statistics of every head: class numbers, 0..1, and finite numbers."""
    _check(_classify(subject, FakeStatistics.of(sample)), (sample.rows, sample.heads))


def probabilities_sum_to_one(subject: Subject, sample: Sample) -> None:
    """Where probabilities are given they sum to 1, the label is the likeliest class, and the confidence is its own."""
    labels = _classify(subject, FakeStatistics.of(sample))
    if labels.probabilities is None:
        return
    probabilities = labels.probabilities
    wanted = (sample.rows, sample.heads, len(labels.names))
    assert probabilities.shape == wanted, f"wanted probabilities {wanted}, got {probabilities.shape}"
    assert probabilities.min() >= 0, "a probability is negative"
    _same(np.ones(wanted[:2]), probabilities.sum(axis=-1), "the probabilities of a head do not sum to 1")
    _same(probabilities.max(axis=-1), labels.confidence, "a confidence is not the largest probability")
    chosen = np.take_along_axis(probabilities, labels.labels[..., None], axis=-1)[..., 0]
    _same(probabilities.max(axis=-1), chosen, "a label is not the likeliest class")


def deterministic(subject: Subject, sample: Sample) -> None:
    """The same statistics get the same labels, in a second call and from a strategy built anew."""
    first = _classify(subject, FakeStatistics.of(sample))
    _alike(first, _classify(subject, FakeStatistics.of(sample)), "a second call differs")
    _alike(first, _classify(subject.again(), FakeStatistics.of(sample)), "a strategy built anew differs")


def global_randomness_untouched(subject: Subject, sample: Sample) -> None:
    """Nothing is drawn from the global generators of torch or NumPy."""
    before, state = torch.get_rng_state(), np.random.get_state(legacy=False)
    _classify(subject, FakeStatistics.of(sample))
    assert torch.equal(before, torch.get_rng_state()), "torch's global random state was used"
    assert repr(state) == repr(np.random.get_state(legacy=False)), "NumPy's global random state was used"


def inputs_untouched(subject: Subject, sample: Sample) -> None:
    """The measurements are as they were."""
    given, own = FakeStatistics.of(sample), FakeStatistics.of(sample)
    _classify(subject, given)
    for name in ("sink", "distance", "entropy", "copies", "rises"):
        assert np.array_equal(getattr(own, name), getattr(given, name)), f"{name} was changed in place"


def heads_permute(subject: Subject, sample: Sample) -> None:
    """Permuting the heads of every layer permutes their labels: each head is judged by itself."""
    _permutes(subject, sample, 2, sample.heads)


def layers_permute(subject: Subject, sample: Sample) -> None:
    """Permuting the layers permutes their labels."""
    _permutes(subject, sample, 1, sample.rows)


def heads_independent(subject: Subject, sample: Sample) -> None:
    """A head gets the label it gets alone."""
    statistics = FakeStatistics.of(sample)
    together = _classify(subject, statistics)
    layer, head = sample.seed % sample.rows, sample.seed % sample.heads
    alone = statistics.rearranged(1, np.array([layer])).rearranged(2, np.array([head]))
    _alike(_taken(together, np.array([layer]), np.array([head])), _classify(subject, alone), "a head alone differs")


def segments_permute(subject: Subject, sample: Sample) -> None:
    """The order of the segments of text does not matter."""
    statistics = FakeStatistics.of(sample)
    other = statistics.rearranged(0, sample.order(SEGMENTS).numpy())
    _alike(_classify(subject, statistics), _classify(subject, other), "labels depend on the order of segments")


def extreme_heads(subject: Subject, sample: Sample) -> None:
    """Heads that look at sinks only, at everything alike, or always at one place are classified with finite numbers."""
    shape = (SEGMENTS, 1, 4)
    distance = np.zeros((*shape, 8 * sample.visual))
    distance[:, 0, 1] = 1 / distance.shape[-1]
    distance[:, 0, 2, 0] = 1
    distance[:, 0, 3, -1] = 1
    sink, entropy = np.zeros(shape), np.zeros(shape)
    sink[:, 0, 0], entropy[:, 0, 1] = 1, 1
    for level in (0.0, 1.0):
        sure = np.stack([np.full((1, 4), level), np.zeros((1, 4))])
        _check(_classify(subject, FakeStatistics(sink, distance, entropy, sure, sure)), (1, 4))


def one_segment(subject: Subject, sample: Sample) -> None:
    """A text that is a single segment has no spread to measure, and is classified all the same."""
    single = FakeStatistics.of(sample).rearranged(0, np.array([0]))
    _check(_classify(subject, single), (sample.rows, sample.heads))


def _classify(subject: Subject, statistics: FakeStatistics) -> HeadLabels:
    labels = subject.answer(statistics=statistics)
    assert isinstance(labels, HeadLabels), f"wanted HeadLabels, got {type(labels).__name__}"
    return labels


def _check(labels: HeadLabels, shape: tuple[int, int]) -> None:
    classes = len(labels.names)
    assert classes == len(set(labels.names)) > 0, f"wanted names of classes, no two the same, got {labels.names}"
    assert np.issubdtype(labels.labels.dtype, np.integer), f"wanted integer labels, got {labels.labels.dtype}"
    arrays = {"labels": labels.labels, "confidence": labels.confidence, **labels.statistics}
    for name, values in arrays.items():
        assert values.shape == shape, f"wanted {name} {shape}, got {values.shape}"
        assert np.isfinite(values).all(), f"{name} is not finite"
    assert 0 <= labels.labels.min() <= labels.labels.max() < classes, f"a label is outside 0..{classes - 1}"
    assert 0 <= labels.confidence.min() <= labels.confidence.max() <= 1 + 1e-9, "a confidence is outside 0..1"


def _permutes(subject: Subject, sample: Sample, axis: int, size: int) -> None:
    statistics, order = FakeStatistics.of(sample), sample.order(size).numpy()
    everyone = [np.arange(sample.rows), np.arange(sample.heads)]
    everyone[axis - 1] = order
    labels = _taken(_classify(subject, statistics), *everyone)
    permuted = _classify(subject, statistics.rearranged(axis, order))
    _alike(labels, permuted, f"labels do not follow a permutation of {'layers' if axis == 1 else 'heads'}")


def _taken(labels: HeadLabels, layers: Integers, heads: Integers) -> HeadLabels:
    """The labels of some layers and heads."""

    def take(values: npt.NDArray[Kind]) -> npt.NDArray[Kind]:
        return np.asarray(values.take(layers, 0).take(heads, 1))

    return HeadLabels(
        names=labels.names,
        labels=take(labels.labels),
        confidence=take(labels.confidence),
        probabilities=None if labels.probabilities is None else take(labels.probabilities),
        statistics={name: take(values) for name, values in labels.statistics.items()},
    )


def _alike(expected: HeadLabels, found: HeadLabels, what: str) -> None:
    assert expected.names == found.names, f"{what}: classes {expected.names} became {found.names}"
    assert expected.statistics.keys() == found.statistics.keys(), f"{what}: other statistics"
    assert (expected.probabilities is None) == (found.probabilities is None), f"{what}: probabilities come and go"
    sure = expected.labels == found.labels
    if expected.probabilities is not None and found.probabilities is not None:
        _same(expected.probabilities, found.probabilities, f"{what}: probabilities")
        top = np.sort(expected.probabilities, axis=-1)
        sure |= top[..., -1] - top[..., -2 if top.shape[-1] > 1 else -1] < 1e-6  # rounding may decide between equals
    assert sure.all(), f"{what}: labels {expected.labels.tolist()} became {found.labels.tolist()}"
    _same(expected.confidence, found.confidence, f"{what}: confidence")
    for name, values in expected.statistics.items():
        _same(values, found.statistics[name], f"{what}: {name}")


def _same(expected: Floats, found: Floats, what: str) -> None:
    assert np.allclose(expected, found, rtol=1e-6, atol=1e-9), f"{what}, by {np.abs(expected - found).max():.3g}"
