"""The laws of head classification: each catches the fault it is there for."""

from __future__ import annotations

import pytest

from headwise.testing import ConformanceError, cases, laws

FAULTS = """
import attrs
import numpy as np
import torch
from headwise import HeadLabels, hookimpl

calls = 0

@attrs.frozen(eq=False)
class Classify:
    fault: str = "none"

    @hookimpl
    def head_classification(self, statistics):
        global calls
        calls += 1
        shares = statistics.attention(4)
        far = shares.distance[..., 16:].sum(axis=-1).mean(axis=0)
        layers, heads = far.shape
        near, names = np.clip(1 - far, 0, 1), ("near", "far")
        found = {"far": far}
        if self.fault == "shape":
            near = near.T
        if self.fault == "statistics":
            found = {"far": far[0]}
        if self.fault == "names":
            names = ("near", "near")
        if self.fault == "over":
            near = near + 0.5
        if self.fault == "stateful":
            near = near / calls
        if self.fault == "global":
            near = near + 0 * np.random.rand(layers, heads)
        if self.fault == "torch":
            near = near + 0 * torch.rand(layers, heads).double().numpy()
        if self.fault == "in_place":
            shares.entropy[...] = 0
        if self.fault == "by_head":
            near = near * np.linspace(0.5, 1, heads)
        if self.fault == "by_layer":
            near = near * np.linspace(0.5, 1, layers)[:, None]
        if self.fault == "rank":
            near = near.ravel().argsort().argsort().reshape(near.shape) / near.size
        if self.fault == "first":
            near = np.clip(shares.distance[0, ..., :16].sum(axis=-1), 0, 1)
        if self.fault == "ratio":
            beyond = shares.distance.sum(axis=-1).mean(axis=0)
            with np.errstate(invalid="ignore"):
                found = {"far": far / beyond}
        if self.fault == "spread":
            with np.errstate(invalid="ignore"):
                found = {"spread": shares.sink.var(axis=0) * len(shares.sink) / np.float64(len(shares.sink) - 1)}
        both = np.stack([near, 1 - near], axis=-1)
        if self.fault == "sum":
            both[..., 1] /= 2
        labels = HeadLabels.most_probable(names, both, found)
        if self.fault == "boast":
            labels = attrs.evolve(labels, confidence=np.ones_like(near))
        if self.fault == "unlikely":
            labels = attrs.evolve(labels, labels=1 - labels.labels)
        if self.fault == "floats":
            labels = attrs.evolve(labels, labels=labels.labels.astype(float))
        if self.fault == "outside":
            labels = attrs.evolve(labels, labels=labels.labels + 1)
        if self.fault == "bare":
            return labels.labels
        return labels
"""


@pytest.fixture
def faults(install):
    install("zebra", "1.2", {"head_classification": {"zebra_fault": "zebra_heads:Classify"}}, zebra_heads=FAULTS)


def check(fault, law):
    (case,) = [
        case
        for case in cases("head_classification", [f"zebra_fault:fault={fault}"])
        if case.id.endswith(f"={fault}-{law}")
    ]
    case.values[0]()


CAUGHT = [
    ("shape", "complete_and_in_range"),
    ("statistics", "complete_and_in_range"),
    ("names", "complete_and_in_range"),
    ("over", "complete_and_in_range"),
    ("floats", "complete_and_in_range"),
    ("outside", "complete_and_in_range"),
    ("bare", "complete_and_in_range"),
    ("sum", "probabilities_sum_to_one"),
    ("boast", "probabilities_sum_to_one"),
    ("unlikely", "probabilities_sum_to_one"),
    ("over", "probabilities_sum_to_one"),
    ("stateful", "deterministic"),
    ("global", "global_randomness_untouched"),
    ("torch", "global_randomness_untouched"),
    ("in_place", "inputs_untouched"),
    ("by_head", "heads_permute"),
    ("by_layer", "layers_permute"),
    ("rank", "heads_independent"),
    ("first", "segments_permute"),
    ("ratio", "extreme_heads"),
    ("spread", "one_segment"),
]


@pytest.mark.parametrize(("fault", "law"), CAUGHT)
def test_law_catches_its_fault(faults, fault, law):
    with pytest.raises(ConformanceError, match=f"breaks the law '{law}'"):
        check(fault, law)


@pytest.mark.parametrize("law", laws("head_classification"))
def test_strategy_without_a_fault_meets_every_law(faults, law):
    check("none", law)


def test_every_law_has_a_fault_that_it_catches():
    assert {law for _, law in CAUGHT} == set(laws("head_classification"))
