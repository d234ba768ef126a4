"""The laws of query selection hold strategies that read embeddings to them, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwise.layout import Layout
from headwise.testing import ConformanceError, Sample, cases
from headwise.testing.query_selection import FakeEmbeddings

FAULTS = """
import attrs
import numpy as np
from headwise import Queries, hookimpl

@attrs.frozen(eq=False)
class Alike:
    fault: str = "none"

    @hookimpl
    def query_selection(self, layout, embeddings):
        rows, weights = [], []
        for row in range(len(layout)):
            tokens = layout.valid(row)[-3:]
            if self.fault == "padding":
                embeddings.at(row, np.arange(layout.length))
            visual = embeddings.visual(0 if self.fault == "batch" else row)
            likeness = self._likeness(embeddings.at(row, tokens), visual)
            rows.append(tokens)
            weights.append((likeness / likeness.sum() if self.fault == "zero" else likeness.softmax(-1)).numpy())
        return Queries.of(rows, weights)

    def _likeness(self, words, visual):
        likeness = words @ visual.T
        return likeness.square().sum(dim=-1) if self.fault == "zero" else likeness.sum(dim=-1)
"""


@pytest.fixture
def faults(install):
    install("zebra", "1.2", {"query_selection": {"zebra_alike": "zebra_mod:Alike"}}, zebra_mod=FAULTS)


def broken_laws(text):
    broken = set()
    for case in cases("query_selection", [text]):
        try:
            case.values[0]()
        except ConformanceError:
            broken.add(case.id.rpartition("-")[2])
    return broken


def test_strategy_that_reads_embeddings_meets_every_law(faults):
    assert broken_laws("zebra_alike") == set()


@pytest.mark.parametrize(
    ("fault", "law"), [("padding", "real_tokens"), ("batch", "rows_independent"), ("zero", "tokens_alike")]
)
def test_law_catches_its_fault(faults, fault, law):
    assert law in broken_laws(f"zebra_alike:fault={fault}")


def test_made_up_embeddings_of_a_token_do_not_depend_on_padding_or_batch():
    sample = Sample(seed=5, rows=3)
    left, right = (sample.layout(left=side) for side in (True, False))
    alone = Layout(left.kinds[[2]])
    expected = FakeEmbeddings.of(sample, left).at(2, left.valid(2))
    assert torch.equal(expected, FakeEmbeddings.of(sample, right).at(2, right.valid(2)))
    assert torch.equal(expected, FakeEmbeddings.of(sample, alone, first_row=2).at(0, alone.valid(0)))
    visual = FakeEmbeddings.of(sample, left).visual(2)
    assert torch.equal(expected[np.isin(left.valid(2), left.image(2))], visual)
