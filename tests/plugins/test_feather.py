"""FEATHER: two stages, a cover beside the best, and a score without rotary positions."""

from __future__ import annotations

import attrs
import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tests.reference import feather as reference

from headwise import BudgetError, Geometry, Pipeline, Recipe, StrategyError, shape
from headwise.registry import resolve

laws = settings(deadline=None, max_examples=25, derandomize=True)
SIGLIP = Geometry(  # what the authors pruned: 27 x 27 tokens, 32 layers
    name="siglip", layers=32, heads=32, kv_heads=32, head_dim=128, hidden=4096, intermediate=11008, visual_tokens=729
)  # fmt: skip


@attrs.frozen
class Rows:
    """Evidence with the given scores, which are told for one kind of attention only."""

    scores: torch.Tensor
    keep: int
    kind: str = "unrotated"

    @property
    def batch(self):
        return len(self.scores)

    @property
    def visual(self):
        return self.scores.shape[1]

    def attention(self, kind):
        assert self.kind == kind
        return self.scores


def planned(text, geometry=SIGLIP, **budget):
    return Pipeline(Recipe.of(f"token_pruning={text}", **budget)).plan(geometry)


def kept(text, scores, keep, place, kind="unrotated"):
    """What a stage keeps of rows of scores, after the pipeline checked and sorted it."""
    pipeline = Pipeline(Recipe.of(f"token_pruning={text}", keep=5))
    stage = pipeline.plan(SIGLIP).stages[place]
    return pipeline.select(stage, Rows(torch.tensor(scores, dtype=torch.float32), keep, kind)).positions.tolist()


@pytest.mark.parametrize(
    ("geometry", "layers"),
    [(SIGLIP, [8, 16]), (shape("llava-1.5-13b"), [10, 20]), (shape("demo-llava"), [3, 6]),
     (attrs.evolve(SIGLIP, layers=6), [2, 3]), (attrs.evolve(SIGLIP, layers=3), [1, 2])],
)  # fmt: skip
def test_stages_stand_at_a_quarter_and_half_of_the_depth(geometry, layers):
    plan = planned("feather", geometry, keep=9)
    assert layers == [stage.layer for stage in plan.stages]
    assert [stage.reads for stage in plan.stages] == [("unrotated",)] * 2


def test_the_published_ratio_leaves_the_published_counts():
    """Best 0.3 of 729 with every third row and column (81), overlapping by chance, and then 0.09 of those."""
    first, last = reference.counts(0.3, 1 / 9, 729)
    plan = planned("feather", tokens=(8 * 729 + 8 * first + 16 * last) / 32)
    assert [first, last] == pytest.approx([stage.keep for stage in plan.stages], abs=1)


@laws
@given(st.floats(0.05, 1), st.floats(0, 0.5))
def test_counts_follow_the_schedule_of_the_ratio(share, uniform):
    """Rounding moves the average by less than half a token, and that moves the first count by less than five."""
    uniform = float(f"{uniform:g}")
    first, last = reference.counts(share, uniform, 729)
    plan = planned(f"feather:uniform={uniform:g}", tokens=min(729, (8 * 729 + 8 * first + 16 * last) / 32))
    assert [first, last] == pytest.approx([stage.keep for stage in plan.stages], abs=5)


@pytest.mark.parametrize(
    "text", ["feather", "feather:uniform=0", "feather:uniform=1", "feather:layer=1,second_layer=2"]
)
@pytest.mark.parametrize("keep", [1, 28, 728, 729])
def test_a_kept_count_is_kept(text, keep):
    assert keep == planned(text, keep=keep).kept


def test_keeping_all_drops_nothing_anywhere():
    assert planned("feather", keep=729).processed == (729,) * 32
    for place in (0, 1):
        assert [list(range(12))] == kept("feather", [[0.0] * 12], 12, place)


def test_averages_that_the_full_layers_exceed_are_refused_with_the_nearest():
    with pytest.raises(BudgetError, match=r"before layers 8, 16 of 32; the nearest feasible budget is tokens=183"):
        planned("feather", tokens=100)


rows = st.integers(1, 30).flatmap(lambda v: st.lists(st.lists(st.integers(0, 4), min_size=v, max_size=v), min_size=1,
                                                     max_size=3))  # fmt: skip


@laws
@given(rows, st.sampled_from([0, 0.1111, 0.34, 1]), st.data())
def test_first_stage_keeps_the_cover_and_the_best_of_the_others(scores, uniform, data):
    keep = data.draw(st.integers(1, len(scores[0])))
    wanted = [reference.first_stage(row, keep, uniform) for row in scores]
    assert wanted == kept(f"feather:uniform={uniform}", scores, keep, 0)


@laws
@given(rows, st.data())
def test_second_stage_keeps_the_best_and_of_equals_the_first(scores, data):
    keep = data.draw(st.integers(1, len(scores[0])))
    assert [reference.second_stage(row, keep) for row in scores] == kept("feather", scores, keep, 1)


def test_cover_stays_although_it_scores_lowest():
    scores = [[1.0] * 36]
    for place in (4, 13, 22, 31):
        scores[0][place] = 0.0
    assert kept("feather", scores, 6, 0) == [[0, 1, 4, 13, 22, 31]]
    assert kept("feather", scores, 6, 1) == [[0, 1, 2, 3, 5, 6]]


def test_criterion_is_what_both_stages_read():
    assert [stage.reads for stage in planned("feather:criterion=attention", keep=3).stages] == [("attention",)] * 2
    for place in (0, 1):
        assert kept("feather:criterion=attention,uniform=0", [[0, 1, 2]], 1, place, kind="attention") == [[2]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("feather:layer=0", "'layer' must be >= 1: 0"),
        ("feather:second_layer=0", "'second_layer' must be >= 1: 0"),
        ("feather:uniform=1.5", "'uniform' must be <= 1: 1.5"),
        ("feather:uniform=-1", "'uniform' must be >= 0: -1.0"),
        ("feather:criterion=own", "'criterion' must be in ('unrotated', 'attention') (got 'own')"),
    ],
)
def test_impossible_options_are_refused_with_a_reason(text, reason):
    with pytest.raises(StrategyError) as caught:
        resolve(text)
    assert str(caught.value).endswith(f"refuses {text!r}: {reason}")


@pytest.mark.parametrize("text", ["feather:layer=31", "feather:layer=3,second_layer=3", "feather:second_layer=32"])
def test_stages_out_of_order_are_refused(text):
    with pytest.raises(BudgetError, match="are not ascending"):
        planned(text, keep=3)
