"""Pruning by static head weights, and the file they are kept in."""

from __future__ import annotations

import json

import attrs
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from headwise import BudgetError, DataError, Pipeline, Recipe, StrategyError, shape
from headwise.head_weights import HeadWeights
from headwise.registry import resolve
from headwise.testing import kit, token_pruning
from headwise.text import StrategyText

laws = settings(deadline=None, max_examples=25, derandomize=True)
DEMO = shape("demo-llava")  # 12 layers, 8 heads
TINY = attrs.evolve(DEMO, name="tiny", layers=3, heads=4, kv_heads=4, visual_tokens=12)


@attrs.frozen
class Rows:
    """Evidence with the given attention (b, h, v), told for one kind only."""

    heads: torch.Tensor
    keep: int
    kind: str = "attention"

    @property
    def batch(self):
        return len(self.heads)

    @property
    def visual(self):
        return self.heads.shape[2]

    def attention(self, kind="attention"):
        assert self.kind == kind
        return self.heads.mean(dim=1)

    def head_attention(self, kind):
        assert self.kind == kind
        return self.heads


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def written(folder, weights, name="w.json"):
    """A file in which layer 1 of TINY has these weights and the other layers have others."""
    full = np.array([[9.0, 0, 0, 0], weights, [0, 0, 0, 9.0]])
    HeadWeights(model="tiny", weights=full).save(folder / name)
    return folder / name


def kept(text, evidence):
    pipeline = Pipeline(Recipe.of(f"token_pruning={text}", keep=evidence.keep))
    (stage,) = pipeline.plan(TINY).stages
    return pipeline.select(stage, evidence).positions.tolist()


def best(scores, keep):
    return sorted(sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:keep])


attention = st.lists(  # whole numbers, so that sums are exact and ties are ties
    st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=4, max_size=4), min_size=1, max_size=3
).map(lambda rows: torch.tensor(rows, dtype=torch.float32))
weights = st.lists(st.sampled_from([-2.0, 0.0, 1.0, 3.0]), min_size=4, max_size=4).filter(lambda w: max(w) > 0)


@laws
@given(attention, st.integers(1, 9), st.sampled_from([0.25, 7.0, 0.0, -1.0]))
def test_equal_weights_and_weights_that_are_not_positive_choose_as_fastv_does(folder, heads, keep, weight):
    path = written(folder, [weight] * 4)
    assert kept("fastv", Rows(heads, keep)) == kept(f"calibrated:weights={path}", Rows(heads, keep))


@laws
@given(attention, st.integers(1, 9), weights)
def test_tokens_with_the_largest_weighted_attention_stay(folder, heads, keep, weights):
    """Weights are small whole numbers over their sum, so float64 sums here rank as float32 sums there, but for ties."""
    path = written(folder, weights)
    positive = [max(weight, 0.0) for weight in weights]
    found = kept(f"calibrated:weights={path}", Rows(heads, keep))
    for row, places in zip(heads.tolist(), found, strict=True):
        scores = [sum(w * head[place] for w, head in zip(positive, row, strict=True)) for place in range(9)]
        assert sorted(scores, reverse=True)[:keep] == sorted((scores[place] for place in places), reverse=True)


@laws
@given(attention, st.integers(1, 9), st.integers(0, 3))
def test_a_single_weighted_head_decides_alone(folder, heads, keep, head):
    path = written(folder, [5.0 if place == head else -1.0 for place in range(4)])
    wanted = [best(row[head], keep) for row in heads.tolist()]
    assert wanted == kept(f"calibrated:weights={path}", Rows(heads, keep))


def test_weights_are_those_of_the_layer_in_front(folder):
    heads = torch.zeros(1, 4, 9)
    for head, place in enumerate((2, 4, 6, 8)):
        heads[0, head, place] = 1.0
    path = written(folder, [0, 0, 1, 0])
    assert kept(f"calibrated:layer=1,weights={path}", Rows(heads, 1)) == [[2]]
    assert kept(f"calibrated:layer=2,weights={path}", Rows(heads, 1)) == [[6]]


def test_l2_takes_a_head_s_attention_to_the_image_out_of_its_say(folder):
    """Head 0 has most of the attention and a little less weight; head 3 has none, which must not be NaN."""
    heads = torch.zeros(1, 4, 9)
    heads[0, 0, 1], heads[0, 1, 5] = 0.9, 0.01
    path = written(folder, [2.0, 3.0, 0.0, 1.0])
    assert kept(f"calibrated:weights={path}", Rows(heads, 1)) == [[1]]
    assert kept(f"calibrated:weights={path},norm=l2", Rows(heads, 1)) == [[5]]


def test_criterion_is_what_is_read(folder):
    path = written(folder, [1.0] * 4)
    heads = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0))
    wanted = kept(f"calibrated:weights={path}", Rows(heads, 4))
    assert wanted == kept(f"calibrated:weights={path},criterion=unrotated", Rows(heads, 4, "unrotated"))
    plan = Pipeline(Recipe.of(f"calibrated:weights={path},criterion=unrotated", keep=3)).plan(TINY)
    assert [stage.reads for stage in plan.stages] == [("unrotated",)]


@pytest.mark.parametrize("text", ["", ",norm=l2,criterion=unrotated,layer=5"])
@pytest.mark.parametrize("law", list(kit.laws("token_pruning")))
def test_with_weights_it_meets_the_laws_of_its_hook(text, law, tmp_path, monkeypatch):
    """On geometries of the file's shape; any other is refused."""
    grouped = attrs.evolve(token_pruning.GROUPED, layers=12)
    monkeypatch.setattr(token_pruning, "GROUPED", grouped)
    monkeypatch.setattr(token_pruning, "GEOMETRIES", (DEMO, grouped))
    values = np.random.default_rng(0).normal(size=(12, 8))
    HeadWeights(model="demo-llava", weights=values).save(tmp_path / "w.json")
    kit.check("token_pruning", f"calibrated:weights={tmp_path / 'w.json'}{text}", law)


def planned(text):
    return Pipeline(Recipe.of(f"token_pruning={text}", keep=3)).plan(TINY)


def test_without_weights_it_says_how_to_make_some():
    with pytest.raises(StrategyError) as caught:
        planned("calibrated")
    assert str(caught.value) == (
        "token_pruning strategy 'calibrated' needs the weights of the model's heads; make them with"
        " `headwise calibrate --out weights.json` and write calibrated:weights=weights.json"
    )


def test_weights_of_another_shape_are_refused(tmp_path):
    HeadWeights(model="other", weights=np.ones((12, 8))).save(tmp_path / "w.json")
    with pytest.raises(DataError, match=r"of 'other' are of 12 layers x 8 heads and tiny has 3 x 4; make some"):
        planned(f"calibrated:weights={tmp_path / 'w.json'}")


def test_a_layer_that_was_not_measured_is_refused_with_those_that_were(tmp_path):
    full = np.full((3, 4), np.nan)
    full[[0, 2]] = 1.0
    HeadWeights(model="tiny", weights=full).save(tmp_path / "w.json")
    with pytest.raises(DataError, match=r"leave out layer 1 \(measured: 0, 2\).*headwise calibrate --layers 1"):
        planned(f"calibrated:weights={tmp_path / 'w.json'}")
    assert planned(f"calibrated:layer=1,weights={tmp_path / 'w.json'}").kept == 3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not a file of head weights"),
        ("[]", "is not a file of head weights"),
        ('{"schema": 1}', "is not a file of head weights"),
        ('{"model": "m", "layers": 3, "heads": 4, "weights": [[1]], "statistics": {}, "source": {}}', "holds an array"),
        ('{"model": "m", "layers": 1, "heads": 1, "weights": [[1e999]], "statistics": {}, "source": {}}', "too large"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, content, told):
    (tmp_path / "w.json").write_text(content)
    with pytest.raises(StrategyError, match=told) as caught:
        planned(f"calibrated:weights={tmp_path / 'w.json'}")
    assert str(caught.value).endswith("make one with `headwise calibrate --out FILE`")


def test_a_missing_file_is_refused_by_its_strategy():
    with pytest.raises(StrategyError, match=r"head weights /nowhere/w.json is missing; make one"):
        resolve("calibrated:weights=/nowhere/w.json")


@pytest.mark.parametrize("name", ["w.json", "two words.json", "a,b=c:d.json", "[x].json", "a[1],b.json", "ü;'q.json"])
def test_canonical_text_tells_path_and_content_and_builds_the_same_again(tmp_path, name):
    path = written(tmp_path, [1.0, 2.0, 3.0, 4.0], name)
    quoted = f"[{path}]" if any(mark in str(path) for mark in ",[]") else path
    text = resolve(f"calibrated:weights={quoted}").text
    parsed = StrategyText.parse(text)
    assert {"weights": str(path), "digest": HeadWeights.load(path).digest}.items() <= parsed.options.items()
    again = resolve(text)
    assert text == again.text
    assert planned(text).kept == 3


def test_a_file_that_changed_is_refused_where_its_text_was_written_down(tmp_path):
    text = resolve(f"calibrated:weights={written(tmp_path, [1.0, 2.0, 3.0, 4.0])}").text
    written(tmp_path, [1.0, 2.0, 3.0, 5.0])
    with pytest.raises(DataError, match=r"have the digest [0-9a-f]{16} and not [0-9a-f]{16}; leave"):
        planned(text)


def test_weights_come_back_from_their_file(tmp_path):
    full = np.array([[0.125, -3.0], [np.nan, np.nan], [1 / 3, 0.0]])
    given = HeadWeights(model="m", weights=full, statistics={"rise": 2 * full}, source={"n": 3, "text": "ü"})
    given.save(tmp_path / "deep" / "w.json")
    found = HeadWeights.load(tmp_path / "deep" / "w.json")
    np.testing.assert_allclose(found.weights, full, rtol=1e-5)
    np.testing.assert_allclose(found.statistics["rise"], 2 * full, rtol=1e-5)
    assert (found.model, found.source) == ("m", {"n": 3, "text": "ü"})
    assert json.loads((tmp_path / "deep" / "w.json").read_text())["weights"][1] is None


def test_digest_is_of_the_weights_alone(tmp_path):
    full = np.array([[1 / 3, -3.0], [np.nan, np.nan]])
    one = HeadWeights(model="m", weights=full, source={"created": "today"})
    one.save(tmp_path / "w.json")
    assert one.digest == HeadWeights.load(tmp_path / "w.json").digest
    assert one.digest == HeadWeights(model="m", weights=full, source={"created": "tomorrow"}).digest
    assert one.digest != HeadWeights(model="m", weights=2 * full).digest


def test_a_layer_s_weights_sum_to_one():
    some = HeadWeights(model="m", weights=np.array([[2.0, -4.0, 6.0], [0, -1, 0]]))
    assert some.of_layer(0).tolist() == [0.25, 0, 0.75]
    assert some.of_layer(1).tolist() == [1 / 3] * 3


def test_budgets_are_those_of_one_stage(folder):
    path = written(folder, [1.0] * 4)
    with pytest.raises(BudgetError, match="smallest feasible budget"):
        Pipeline(Recipe.of(f"calibrated:weights={path}", tokens=2)).plan(TINY)
