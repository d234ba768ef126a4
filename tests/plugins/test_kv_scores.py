"""Score-based KV eviction: scores equal slow references from the papers; budgets, controls and composition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference import kv_scores as reference

from headwise import BudgetError, Geometry, Pipeline, Recipe, StrategyError
from headwise.eviction import ScorePlan
from headwise.testing import Sample
from headwise.testing.fake_cache import FakeCacheEvidence

laws = settings(deadline=None, max_examples=15, derandomize=True)

SHARED = Geometry(name="shared", layers=4, heads=4, kv_heads=2, head_dim=8, hidden=32, intermediate=48, visual_tokens=0)
OWN = Geometry(name="own", layers=3, heads=3, kv_heads=3, head_dim=4, hidden=12, intermediate=24, visual_tokens=0)
STRATEGIES = (
    "h2o",
    "snapkv",
    "tova",
    "knorm",
    "keydiff",
    "expected_attention",
    "pyramidkv",
    "adakv",
    "lagkv",
    "random",
)

caches = st.builds(
    dict,
    seed=st.integers(0, 2**20),
    rows=st.integers(1, 3),
    tokens=st.integers(1, 40),
    held=st.sampled_from([1.0, 0.6]),
    geometry=st.sampled_from([SHARED, OWN]),
    kind=st.sampled_from(["diffuse", "peaked"]),
)


def pipeline(text):
    return Pipeline(Recipe.of(f"kv_eviction={text}"))


def plan_of(text, geometry=SHARED):
    return pipeline(text).eviction(geometry)


def cache_of(plan, *, seed=0, rows=1, tokens=24, held=1.0, geometry=SHARED, kind="diffuse", **more):
    return FakeCacheEvidence(Sample(seed, rows=rows, kind=kind), geometry, plan, tokens=tokens, held=held, **more)


def row_of(evidence, row):
    """One row of a cache as the references take it: plain numbers, no empty slots, no missing queries."""
    filled, plan, seen = evidence.positions[row] >= 0, evidence.plan, int(evidence.seen[row])
    group = evidence.geometry.heads // evidence.geometry.kv_heads
    asked = min(plan.queries, seen)
    found = reference.Row(
        seen,
        *([states[row][head][filled[head]].tolist() for head in range(len(filled))]
          for states in (evidence.positions, evidence.keys.double(), evidence.values.double())),
    )  # fmt: skip
    by_head = filled.repeat_interleave(group, dim=0)
    if plan.queries:
        attention = evidence.attention(plan.queries)[row].double()
        found.attention = [head[-asked:][:, by_head[index]].tolist() for index, head in enumerate(attention)]
    if plan.rotates:
        found.queries = evidence.queries(plan.queries)[row, :, -asked:].tolist()
    if plan.accumulates:
        accumulated = evidence.accumulated_attention()[row].double()
        found.accumulated_attention = [head[by_head[index]].tolist() for index, head in enumerate(accumulated)]
    return found


def scores_of(evidence, row):
    """Scores of one row, those of filled entries, one list per KV head."""
    scores, filled = evidence.plan.score(evidence)[row], evidence.positions[row] >= 0
    return [head[there].tolist() for head, there in zip(scores, filled, strict=True)]


CASES = {
    "knorm": reference.knorm,
    "keydiff": reference.keydiff,
    "tova": reference.tova,
    "h2o:budget=10": lambda row: reference.h2o(row, 10),
    "h2o:budget=6,latest=1,sinks=2": lambda row: reference.h2o(row, 6, latest=1, sinks=2),
    "h2o": lambda row: reference.h2o(row, row.seen // 2),
    "snapkv:queries=6": lambda row: reference.snapkv(row, 6),
    "snapkv:queries=7,recent=2,kernel=3": lambda row: reference.snapkv(row, 2, kernel=3),
    "snapkv:budget=4,queries=9,kernel=7,pool=max": lambda row: reference.snapkv(row, 2, kernel=7, pool="max"),
    "expected_attention:future=3,queries=6": lambda row: reference.expected_attention(row, 3),
    "expected_attention:future=5,sinks=0,epsilon=0.1": lambda row: reference.expected_attention(
        row, 5, sinks=0, epsilon=0.1
    ),
    "expected_attention:future=4,sinks=1": lambda row: reference.expected_attention(row, 4, sinks=1),
    "lagkv:lag=3": lambda row: reference.lagkv(row, 3),
    "lagkv:lag=5,sinks=0": lambda row: reference.lagkv(row, 5, sinks=0),
    "lagkv:lag=1,sinks=2": lambda row: reference.lagkv(row, 1, sinks=2),
}


@pytest.mark.parametrize("text", CASES)
@laws
@given(caches)
def test_scores_equal_the_slow_reference(text, drawn):
    evidence = cache_of(plan_of(text, drawn["geometry"]), **drawn)
    for row in range(drawn["rows"]):
        for expected, found in zip(CASES[text](row_of(evidence, row)), scores_of(evidence, row), strict=True):
            assert found == pytest.approx(expected, rel=2e-4, abs=1e-6)


@laws
@given(caches)
def test_tova_gives_every_head_the_same_scores(drawn):
    evidence = cache_of(plan_of("tova", drawn["geometry"]), **(drawn | {"held": 1.0}))
    scores = evidence.plan.score(evidence)
    assert torch.equal(scores[:, :1].expand_as(scores), scores)


def test_lagkv_keeps_the_last_entries_of_a_short_text():
    plan = plan_of("lagkv:budget=10,sinks=2,lag=128")
    evidence = cache_of(plan, tokens=40)
    kept = pipeline("lagkv:budget=10,sinks=2,lag=128").retained(plan, evidence)
    assert [0, 1, *range(32, 40)] == evidence.positions[0, 0][kept[0, 0]].tolist()


def test_lagkv_keeps_the_same_share_of_every_partition():
    plan = plan_of("lagkv:ratio=0.5,sinks=0,lag=8")
    evidence = cache_of(plan, tokens=40)
    kept = pipeline("lagkv:ratio=0.5,sinks=0,lag=8").retained(plan, evidence)
    # 20 stay: all 8 of the last partition, 3 of each of the others
    assert kept[0, 0].reshape(5, 8).sum(dim=-1).tolist() == [3, 3, 3, 3, 8]


def test_h2o_splits_its_budget_between_heavy_and_latest():
    plan = plan_of("h2o:budget=8")
    evidence = cache_of(plan, tokens=30)
    kept = pipeline("h2o:budget=8").retained(plan, evidence)[0, 1]
    accumulated = evidence.accumulated_attention()[0].reshape(2, 2, -1).mean(dim=1)[1, :26]
    heavy = sorted(accumulated.topk(4).indices.tolist())
    assert [*heavy, 26, 27, 28, 29] == kept.nonzero().flatten().tolist()


def test_random_draws_the_same_for_a_token_whatever_else_is_held():
    plan = plan_of("random:seed=3")
    whole, gaps = (cache_of(plan, tokens=40, held=held, seed=5) for held in (1.0, 0.5))
    drawn = whole.plan.score(whole).gather(-1, gaps.positions.clamp_min(0))
    filled = gaps.positions >= 0
    assert torch.equal(drawn[filled], gaps.plan.score(gaps)[filled])


def test_random_draws_evenly_and_anew_for_seed_layer_and_head():
    draws = [
        evidence.plan.score(evidence)[0]
        for seed in (0, 1, 2**40 + 1)
        for layer in (0, 1)
        for evidence in [cache_of(plan_of(f"random:seed={seed}", OWN), geometry=OWN, tokens=4000, layer=layer)]
    ]
    drawn = torch.stack(draws).flatten(0, 1).double()
    lots = (torch.stack([(drawn < edge).double().mean(dim=-1) for edge in (0.1, 0.5, 0.9)]) * 10).round().long()
    assert lots.unique(dim=1).tolist() == [[1], [5], [9]]
    correlation = np.corrcoef(drawn.numpy()) - np.eye(len(drawn))
    # 4000 draws have a standard error of 0.016
    assert abs(correlation).max() < 0.08


def test_pyramid_budgets_fall_in_equal_steps_from_twice_the_mean():
    plan = plan_of("pyramidkv:budget=40,recent=10,beta=3,queries=8")
    # 30 entries beyond the protected ten: from 50 to 10 on average over 4 layers
    assert plan.per_layer(10_000).tolist() == [60, 47, 33, 20]
    assert plan.per_layer(10_000).sum() == 40 * 4


def test_pyramid_gives_high_layers_what_low_ones_have_no_tokens_for():
    plan = plan_of("pyramidkv:budget=40,recent=10,queries=8")
    assert plan.per_layer(50).sum() == 40 * 4
    assert plan.per_layer(50).max() == 50
    assert plan.per_layer(40).tolist() == [40] * 4


@laws
@given(caches)
def test_pyramid_scores_are_those_of_snapkv(drawn):
    options = "queries=5,kernel=3,pool=max,budget=12"
    plans = [plan_of(f"{name}:{options}", drawn["geometry"]) for name in ("snapkv", "pyramidkv")]
    snapkv, pyramid = (cache_of(plan, **drawn) for plan in plans)
    assert torch.equal(snapkv.plan.score(snapkv), pyramid.plan.score(pyramid))


@laws
@given(caches, st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_adakv_keeps_what_the_slow_reference_keeps_where_levels_do_not_matter(drawn, floor):
    text = f"adakv:of=[snapkv:budget=6,queries=4],floor={floor},levels=9"
    plan = plan_of(text, drawn["geometry"])
    evidence = cache_of(plan, **drawn)
    kept = pipeline(text).retained(plan, evidence)
    for row in range(drawn["rows"]):
        filled, seen = evidence.positions[row] >= 0, int(evidence.seen[row])
        found = [there[here].nonzero().flatten().tolist() for here, there in zip(filled, kept[row], strict=True)]
        places = [head[there].tolist() for head, there in zip(evidence.positions[row], filled, strict=True)]
        protected = [[position >= seen - 3 for position in head] for head in places]
        expected = reference.pooled(scores_of(evidence, row), protected, min(6, seen), floor)
        assert [sorted(slots) for slots in expected] == found


def test_adakv_takes_its_budget_from_the_strategy_it_wraps():
    plan = plan_of("adakv:of=[h2o:budget=12,sinks=2,recent=3,every=4],floor=0.3,levels=5")
    assert (plan.budget, plan.sinks, plan.recent, plan.every) == (12, 2, 3, 4)
    assert (plan.pooled, plan.floor, plan.levels, plan.accumulates) == (True, 0.3, 5, True)


def test_adakv_refuses_a_strategy_without_scores():
    with pytest.raises(StrategyError) as caught:
        plan_of("adakv:of=streaming")
    assert str(caught.value) == (
        "kv_eviction strategy 'adakv' needs scores to let heads compete, but"
        " 'streaming:sinks=4,window=60,positions=relative' goes by position alone; give a strategy that scores entries,"
        " such as of=snapkv"
    )


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "adakv"])
def test_common_options_mean_the_same_everywhere(name):
    plan = plan_of(f"{name}:budget=20,sinks=3,recent=2,every=7,rerotate=true")
    assert (
        plan.budget, plan.ratio, plan.sinks, plan.recent, plan.every, plan.rerotate
    ) == (20, None, 3, 2, 7, True)  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_half_of_the_tokens_are_kept_by_default_and_the_text_says_so(name):
    plan = plan_of(name)
    assert isinstance(plan, ScorePlan)
    assert plan.ratio == 0.5
    assert "ratio=0.5" in Recipe.of(f"kv_eviction={name}").strategies["kv_eviction"].text


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "adakv"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("budget=64,ratio=0.5", "give either budget (entries per KV head) or ratio (share kept), one of the two"),
        ("budget=0", "budget=0 keeps no entry; give at least 1"),
        ("ratio=1.5", "ratio=1.5 is not a share of the tokens to keep; give a number above 0, up to 1"),
        ("budget=few", "'few' is not a whole number"),
    ],
)
def test_budgets_that_make_no_sense_are_refused_by_name(name, options, message):
    with pytest.raises(StrategyError) as caught:
        plan_of(f"{name}:{options}")
    assert str(caught.value).endswith(message)
    assert f"kv_eviction strategy {name!r}" in str(caught.value)


def test_a_budget_that_cannot_hold_the_protected_tokens_is_refused():
    with pytest.raises(BudgetError, match=r"^budget=8 cannot hold 4 sinks and 6 recent tokens"):
        plan_of("knorm:budget=8,sinks=4,recent=6")


def test_the_observation_window_takes_at_most_half_of_a_budget():
    assert [
        plan_of(f"snapkv:{options}").recent
        for options in ("ratio=0.5", "budget=64", "budget=500", "budget=64,recent=5")
    ] == [64, 32, 64, 5]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_text_of_one_token_is_kept(name):
    plan = plan_of(name)
    kept = pipeline(name).retained(plan, cache_of(plan, tokens=1))
    assert kept.tolist() == [[[True], [True]]]
    assert not math.isnan(float(plan.score(cache_of(plan, tokens=1)).sum()))
