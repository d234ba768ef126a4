"""Classes of heads from measurements that are written down here, with probabilities from the statistics module.

Definitions: KV eviction 5.2 (locality), 5.1 (retrieval: an induction score above 0.1; sensitivity: the loss of
one head alone), seed 004 (entropy). The normal distribution is Python's, not the plugins'.
"""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from headwise import Geometry, Pipeline, Recipe
from headwise.heads import AttentionShares

GEOMETRY = Geometry(
    name="one layer", layers=1, heads=4, kv_heads=4, head_dim=2, hidden=8, intermediate=16, visual_tokens=0
)  # fmt: skip
PHI = statistics.NormalDist().cdf


class Measured:
    """What was measured of four heads in three segments of a text of 100 tokens."""

    geometry = GEOMETRY

    def __init__(self, sink=None, far=None, entropy=None, pair=None):
        self._sink, self._far, self._entropy, self._pair = sink, far, entropy, pair

    def attention(self, sinks):
        sink = np.zeros((3, 1, 4)) if self._sink is None else np.array(self._sink)[:, None]
        distance = np.zeros((3, 1, 4, 100))
        if self._far is not None:  # half of what is near is on the query itself, and what is far is 80 back
            far = np.array(self._far)[:, None]
            distance[..., 0] = distance[..., 63] = (1 - sink) * (1 - far) / 2
            distance[..., 80] = (1 - sink) * far
        entropy = np.zeros((3, 1, 4)) if self._entropy is None else np.array(self._entropy)[:, None]
        return AttentionShares(sinks=sinks, sink=sink, distance=distance, entropy=entropy, rows=30)

    def copying(self):
        return tuple(np.array([values]) for values in self._pair)

    def sensitivity(self, sinks, window):
        return self.copying()


def classified(text, measured):
    return Pipeline(Recipe(strategies=built(text))).classify(measured)


def built(text):
    from headwise.registry import resolve

    return {"head_classification": resolve(f"head_classification={text}", ("head_classification",))}


def test_locality_is_the_far_share_without_sinks():
    """x = far / (1 - sink); P(positional) = Phi((1/3 - x) / s), P(gathering) = Phi((x - 2/3) / s), s >= 0.02."""
    sink = [[0.1, 0.5, 0.2, 0.93], [0.1, 0.5, 0.2, 0.95], [0.1, 0.5, 0.2, 0.97]]
    far = [[0.2, 0.9, 0.4, 0.5], [0.2, 0.8, 0.5, 0.5], [0.2, 0.7, 0.6, 0.5]]
    labels = classified("locality", Measured(sink=sink, far=far))
    assert [labels.names[label] for label in labels.labels[0]] == ["positional", "gathering", "mixed", "idle"]
    assert labels.statistics["far"][0] == pytest.approx([0.2, 0.8, 0.5, 0.5])
    error = 0.1 / 3**0.5  # of .9 .8 .7, and of .4 .5 .6
    gathering, positional = PHI((0.8 - 2 / 3) / error), PHI((1 / 3 - 0.8) / error)
    expected = [positional, 1 - positional - gathering, gathering, 0.0]
    assert labels.probabilities[0, 1] == pytest.approx(expected, abs=1e-4)
    assert labels.confidence[0, 0] == pytest.approx(PHI((1 / 3 - 0.2) / 0.02), abs=1e-4)
    assert labels.probabilities[0, 3, 3] == pytest.approx(PHI((0.95 - 0.9) / 0.02), abs=1e-4)
    assert labels.statistics["within_64"][0] == pytest.approx([0.9 * 0.8, 0.5 * 0.2, 0.8 * 0.5, 0.05 * 0.5])
    # 95 % is held with the far token only, 81 back with the query; the idle head's sinks hold .95 by themselves
    assert labels.statistics["w95"][0, :3].tolist() == [81, 81, 81]


def test_a_head_on_the_boundary_is_as_sure_as_a_coin():
    third = [[1 / 3] * 4] * 3
    assert classified("locality", Measured(far=third)).confidence[0] == pytest.approx([0.5] * 4, abs=1e-3)


def test_entropy_has_the_confidences_of_the_study():
    """Positional up to .4, gathering from .7; how far past, as a share of what is possible; .5 for all between."""
    labels = classified(
        "entropy", Measured(entropy=[[0.1, 0.5, 0.85, 0.36], [0.3, 0.6, 0.85, 0.36], [0.2, 0.7, 0.85, 0.36]])
    )
    assert [labels.names[label] for label in labels.labels[0]] == ["positional", "mixed", "gathering", "positional"]
    assert labels.confidence[0] == pytest.approx([0.2 / 0.4, 0.5, 0.15 / 0.3, 0.04 / 0.4], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "threshold", "least"), [("retrieval", 0.1, 0.02), ("sensitivity:threshold=0.01", 0.01, 0.0)]
)
def test_a_mean_and_its_error_say_how_probable_it_is_to_be_above_the_threshold(text, threshold, least):
    means, errors = [0.3, 0.1, 0.0, 0.02], [0.05, 0.03, 0.001, 0.004]
    labels = classified(text, Measured(pair=(means, errors)))
    expected = [PHI((m - threshold) / max(s, least)) for m, s in zip(means, errors, strict=True)]
    assert labels.probabilities[0, :, 0] == pytest.approx(expected, abs=1e-6)
    assert labels.labels[0].tolist() == [0 if p >= 0.5 else 1 for p in expected]
