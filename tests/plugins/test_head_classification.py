"""Classes of heads: probabilities that mean something, thresholds that are crossed where they should be."""

from __future__ import annotations

import math
from statistics import NormalDist

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.errors import DataError, StrategyError
from headwise.geometry import Geometry
from headwise.heads import AttentionShares, HeadLabels, HeadProfile, check_labels
from headwise.pipeline import Pipeline
from headwise.recipe import Recipe
from headwise.registry import Registry

laws = settings(deadline=None, max_examples=50, derandomize=True)
TOKENS = 400
phi = NormalDist().cdf
shares_of_one = st.floats(0, 1)


@attrs.frozen(eq=False)
class Measured:
    """One layer of heads, each with a far share, a sink share and an entropy per segment; (k, h) each.

    Attention on the text is on the query itself or 300 tokens back.
    """

    far: np.ndarray
    sink: np.ndarray | float = 0.0
    entropy: np.ndarray | float = 0.5
    copies: tuple = ()
    rises: tuple = ()
    asked: list = attrs.field(factory=list)

    @property
    def geometry(self):
        heads = np.atleast_2d(self.far).shape[-1]
        return Geometry(name="made up", layers=1, heads=heads, kv_heads=heads, head_dim=4, hidden=4 * heads,
                        intermediate=8, visual_tokens=0)  # fmt: skip

    def attention(self, sinks):
        far = np.atleast_2d(np.array(self.far, dtype=float))[:, None]
        sink, entropy = (np.broadcast_to(np.array(part, dtype=float), far.shape).copy()
                         for part in (self._spread(self.sink), self._spread(self.entropy)))  # fmt: skip
        distance = np.zeros((*far.shape, TOKENS))
        distance[..., 0], distance[..., 300] = (1 - far) * (1 - sink), far * (1 - sink)
        self.asked.append(("attention", sinks))
        return AttentionShares(sinks=sinks, sink=sink, distance=distance, entropy=entropy, rows=10)

    @staticmethod
    def _spread(part):
        return part[:, None] if np.ndim(part) == 2 else part

    def copying(self):
        self.asked.append(("copying",))
        return tuple(np.array([part], dtype=float) for part in self.copies)

    def sensitivity(self, sinks, window):
        self.asked.append(("sensitivity", sinks, window))
        return tuple(np.array([part], dtype=float) for part in self.rises)


def classify(text, measured):
    strategy = Registry.installed("head_classification").build(text)
    labels = Pipeline(Recipe(strategies={"head_classification": strategy})).classify(measured)
    check_labels(labels, labels.labels.shape)
    return labels


def steady(*values, segments=8):
    """The same value in every segment."""
    return np.tile(np.array(values), (segments, 1))


def test_locality_names_near_far_and_idle_heads():
    labels = classify("locality", Measured(steady(0.0, 0.5, 1.0, 0.5), steady(0.0, 0.5, 0.0, 1.0)))
    assert labels.names == ("positional", "mixed", "gathering", "idle")
    assert labels.labels.tolist() == [[0, 1, 2, 3]]
    assert labels.confidence.min() > 0.999
    assert labels.counts() == {"positional": 1, "mixed": 1, "gathering": 1, "idle": 1}


@pytest.mark.parametrize(("far", "between"), [(1 / 3, {0, 1}), (2 / 3, {1, 2})])
def test_a_head_on_a_boundary_of_locality_is_as_likely_on_either_side(far, between):
    labels = classify("locality", Measured(steady(far)))
    (probabilities,) = labels.probabilities[0]
    assert sorted(between) == sorted(np.argsort(probabilities)[-2:].tolist())
    np.testing.assert_allclose([0.5, 0.5], probabilities[sorted(between)], atol=1e-4)
    assert labels.confidence[0, 0] == pytest.approx(0.5, abs=1e-4)


def test_a_head_whose_sink_share_is_on_the_boundary_is_idle_with_probability_one_half():
    labels = classify("locality", Measured(steady(0.5), steady(0.9)))
    assert labels.probabilities[0, 0].tolist() == pytest.approx([0, 0.5, 0, 0.5], abs=1e-9)


@laws
@given(st.lists(st.tuples(shares_of_one, shares_of_one), min_size=2, max_size=12))
def test_locality_is_the_formula_of_its_description(segments):
    """Against NormalDist and a loop over segments, for any far and sink shares."""
    far, sink = np.array(segments).T
    labels = classify("locality", Measured(far[:, None], sink[:, None]))
    beyond, count = 1 - sink, len(segments)
    x = sum(far * beyond) / sum(beyond) if sum(beyond) > 0 else 0.0
    own = [one if rest > 0 else 0.0 for one, rest in zip(far, beyond, strict=True)]
    s = max(np.std(own, ddof=1) / math.sqrt(count), 0.02)
    idle = phi((np.mean(sink) - 0.9) / max(np.std(sink, ddof=1) / math.sqrt(count), 0.02))
    near, gathers = phi((1 / 3 - x) / s), 1 - phi((2 / 3 - x) / s)
    expected = np.array([near, 1 - near - gathers, gathers, 0]) * (1 - idle) + [0, 0, 0, idle]
    np.testing.assert_allclose(expected, labels.probabilities[0, 0], atol=1e-4)
    assert labels.statistics["far"][0, 0] == pytest.approx(x, abs=1e-9)
    assert labels.confidence[0, 0] >= 0.25


@laws
@given(st.lists(shares_of_one, min_size=4, max_size=4), st.integers(2, 8))
def test_locality_grows_surer_with_more_of_the_same_text(segments, times):
    """Repeating the segments leaves the far share alone and shrinks its error, so no confidence falls."""
    few = np.array(segments)[:, None]
    low = classify("locality:min_se=1e-6", Measured(few))
    high = classify("locality:min_se=1e-6", Measured(np.tile(few, (times, 1))))
    assert high.labels.tolist() == low.labels.tolist() or abs(low.confidence - 0.5) < 1e-4
    if low.confidence[0, 0] > 0.5:
        assert high.confidence[0, 0] >= low.confidence[0, 0] - 1e-9


def test_no_confidence_of_mixed_heads_is_a_constant():
    labels = classify("locality", Measured(steady(*np.linspace(0.34, 0.44, 20))))
    assert set(labels.labels.ravel()) == {1}
    assert len(np.unique(labels.confidence)) == 20
    assert labels.confidence.min() < 0.7
    assert labels.confidence.max() > 0.999


@pytest.mark.parametrize(("count", "sure"), [(1, False), (8, True)])
def test_a_single_segment_is_no_reason_to_be_sure(count, sure):
    labels = classify("locality", Measured(steady(0.05, segments=count)))
    assert bool(labels.confidence[0, 0] > 0.9) is sure


def test_statistics_of_locality_are_those_of_the_profile():
    measured = Measured(steady(0.0, 0.25, 1.0, 0.5), steady(0.0, 0.2, 0.96, 1.0))
    statistics = {name: values[0].tolist() for name, values in classify("locality", measured).statistics.items()}
    assert statistics["far"] == pytest.approx([0, 0.25, 1, 0])
    assert statistics["far_se"] == [0, 0, 0, 0]
    assert statistics["sink"] == pytest.approx([0, 0.2, 0.96, 1])
    for window in (16, 64, 256):
        assert statistics[f"within_{window}"] == pytest.approx([1, 0.6, 0, 0])
    assert statistics["w95"] == [1, 301, 1, 1]
    halves = 1 - (-0.75 * math.log(0.75) - 0.25 * math.log(0.25)) / math.log(TOKENS)
    assert statistics["determinism"] == pytest.approx([1, halves, 1, 0])
    assert measured.asked == [("attention", 4)]


def test_even_attention_has_no_determinism_and_needs_95_percent_of_the_text():
    class Even(Measured):
        def attention(self, sinks):
            shares = super().attention(sinks)
            return attrs.evolve(shares, distance=np.full_like(shares.distance, 1 / TOKENS))

    statistics = classify("locality", Even(steady(0.5))).statistics
    assert statistics["determinism"][0, 0] == pytest.approx(0, abs=1e-9)
    assert statistics["w95"][0, 0] == pytest.approx(0.95 * TOKENS, abs=1)
    assert statistics["far"][0, 0] == pytest.approx(1 - 64 / TOKENS)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("locality:low=0.7,high=0.6", "high=0.6 is below low=0.7; give low <= high"),
        ("locality:window=0", "'window' must be >= 1: 0"),
        ("locality:min_se=0", "'min_se' must be > 0: 0.0"),
        ("locality:idle=2", "'idle' must be <= 1: 2.0"),
        ("entropy:low=0.5,high=0.5", "high=0.5 is not above low=0.5"),
        ("retrieval:threshold=-1", "'threshold' must be >= 0: -1.0"),
        ("sensitivity:windows=3", "has no option 'windows'; did you mean window?"),
    ],
)
def test_options_that_make_no_sense_are_refused(text, told):
    with pytest.raises(StrategyError) as caught:
        Registry.installed("head_classification").build(text)
    assert told in str(caught.value)


@laws
@given(st.lists(shares_of_one, min_size=1, max_size=8))
def test_entropy_gives_every_mixed_head_the_same_confidence(entropies):
    """The fault of the method it reproduces: 566 of seed 004's 1024 heads have exactly 0.500."""
    labels = classify("entropy", Measured(np.zeros((1, len(entropies))), 0.0, np.array([entropies])))
    assert labels.probabilities is None
    for entropy, label, confidence in zip(entropies, labels.labels[0], labels.confidence[0], strict=True):
        assert label == (0 if entropy <= 0.4 else 2 if entropy >= 0.7 else 1)
        past = {0: (0.4 - entropy) / 0.4, 1: 0.5, 2: (entropy - 0.7) / 0.3}[label]
        assert confidence == pytest.approx(past, abs=1e-9)


def test_entropy_never_lets_a_threshold_above_one_half_choose_a_mixed_head_and_locality_does():
    many = np.linspace(0, 1, 101)
    measured = Measured(steady(*many), 0.0, steady(*many))
    by_entropy, by_locality = classify("entropy", measured), classify("locality", measured)
    assert not ((by_entropy.labels == 1) & (by_entropy.confidence >= 0.6)).any()
    assert ((by_locality.labels == 1) & (by_locality.confidence >= 0.6)).any()


def test_entropy_takes_sinks_for_locality_and_locality_does_not():
    """A head that stares at sinks and one that looks at its neighbour have the same low entropy."""
    measured = Measured(steady(0.9, 0.0), steady(0.8, 0.0), steady(0.1, 0.1))
    assert classify("entropy", measured).labels.tolist() == [[0, 0]]
    assert classify("locality", measured).labels.tolist() == [[2, 0]]


@pytest.mark.parametrize("text", ["retrieval", "sensitivity:threshold=0.1,window=9"])
@laws
@given(st.lists(st.tuples(shares_of_one, st.floats(0, 0.2)), min_size=1, max_size=6))
def test_retrieval_and_sensitivity_are_the_probability_of_passing_the_threshold(text, heads):
    mean, error = zip(*heads, strict=True)
    least = 0.02 if text == "retrieval" else np.finfo(np.float32).eps
    measured = Measured(np.zeros((1, len(heads))), copies=(mean, error), rises=(mean, error))
    labels = classify(text, measured)
    expected = [phi((one - 0.1) / max(other, least)) for one, other in heads]
    np.testing.assert_allclose(expected, labels.probabilities[0, :, 0], atol=1e-9)
    np.testing.assert_allclose(1, labels.probabilities.sum(axis=-1))
    name = "copying" if text == "retrieval" else "rise"
    assert labels.statistics[name].tolist() == [list(mean)]
    assert labels.statistics[f"{name}_se"].tolist() == [list(error)]
    assert measured.asked == [("copying",) if text == "retrieval" else ("sensitivity", 4, 9)]


@pytest.mark.parametrize(
    ("text", "names"),
    [("retrieval", ("retrieval", "other")), ("sensitivity:threshold=0.1", ("sensitive", "insensitive"))],
)
def test_a_head_on_the_threshold_is_a_coin_toss_and_one_without_error_is_sure(text, names):
    values = ((0.1, 0.5, 0.0), (0.05, 0.0, 0.0))
    labels = classify(text, Measured(np.zeros((1, 3)), copies=values, rises=values))
    assert labels.names == names
    assert labels.confidence[0].tolist() == pytest.approx([0.5, 1, 1], abs=1e-6)
    assert labels.labels[0, 1:].tolist() == [0, 1]


@pytest.mark.parametrize("share", [None, float("nan"), -0.25, 2.0, float("inf")])
def test_probabilities_that_are_no_shares_of_one_are_refused(share, tmp_path):
    labels = HeadLabels.most_probable(("a", "b"), np.array([[[0.25, 0.75], [1.0, 0.0]]]))
    content = HeadProfile(model="made up", labels=labels).plain()
    content["probabilities"][0][0][1] = share
    with pytest.raises(DataError, match="the probabilities of a head are no shares that sum to 1"):
        HeadProfile.from_plain(content)


@pytest.mark.parametrize("text", ["locality", "entropy", "retrieval", "sensitivity"])
def test_labels_survive_a_profile_on_disk(text, tmp_path):
    some = ((0.1, 0.3), (0.01, 0.02))
    measured = Measured(steady(0.2, 0.7), steady(0.1, 0.5), steady(0.3, 0.8), copies=some, rises=some)
    labels = classify(text, measured)
    HeadProfile(model="made up", labels=labels).save(tmp_path / "profile.json")
    again = HeadProfile.load(tmp_path / "profile.json")
    again.check(measured.geometry)
    assert again.labels.names == labels.names
    assert again.labels.labels.tolist() == labels.labels.tolist()
    np.testing.assert_allclose(labels.confidence, again.labels.confidence, rtol=1e-5)
    assert again.labels.statistics.keys() == labels.statistics.keys()
