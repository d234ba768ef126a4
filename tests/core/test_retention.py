"""Which entries stay, against brute force: protection, ties, budgets per head and pooled, few different counts."""

from __future__ import annotations

import math

import attrs
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.eviction import ScorePlan
from headwise.geometry import Geometry
from headwise.retention import levelled, retained

laws = settings(deadline=None, max_examples=60, derandomize=True)
SMALL = Geometry(name="small", layers=3, heads=6, kv_heads=3, head_dim=4, hidden=24, intermediate=48, visual_tokens=0)


def plan(**options):
    if "budget" not in options and "ratio" not in options:
        options["ratio"] = 0.5
    return ScorePlan(geometry=SMALL, score=lambda evidence: evidence.keys, **options)


@st.composite
def layers(draw, heads=SMALL.kv_heads):
    """Scores, positions and tokens read of one layer: rows and heads of different lengths, ties, infinities."""
    rows, seen = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    counts = [draw(st.integers(1, seen)) for _ in range(rows)]
    held = [
        [sorted(draw(st.sets(st.integers(0, count - 1), min_size=1))) for _ in range(heads)] for count in counts
    ]  # fmt: skip
    width = max(len(head) for row in held for head in row) + draw(st.integers(0, 2))
    positions = torch.tensor([[head + [-1] * (width - len(head)) for head in row] for row in held])
    score = st.sampled_from([-math.inf, -1.0, 0.0, 0.25, 0.5, 3.0, math.inf])
    scores = torch.tensor([[[draw(score) for _ in range(width)] for _ in row] for row in held])
    return scores, positions, torch.tensor(counts)


@st.composite
def plans(draw, **more):
    sinks, recent = draw(st.integers(0, 2)), draw(st.integers(0, 3))
    limit = draw(st.one_of(st.integers(max(1, sinks + recent), 12), st.sampled_from([0.1, 0.3, 0.5, 1.0])))
    limits = {"budget": limit} if isinstance(limit, int) else {"ratio": limit}
    shares = draw(st.sampled_from([None, np.array([2.0, 1.0, 0.5])]))
    return plan(sinks=sinks, recent=recent, shares=shares, **limits, **more)


def ranking(scores, positions, seen, plan):
    """Slots of one head, best first: protected ones, then by score, then the earlier."""
    slots = [slot for slot, position in enumerate(positions) if position >= 0]
    protected = {slot for slot in slots if positions[slot] < plan.sinks or positions[slot] >= seen - plan.recent}
    return sorted(slots, key=lambda slot: (slot not in protected, -scores[slot], slot)), protected


@laws
@given(layers(), plans(), st.integers(0, SMALL.layers - 1))
def test_every_head_keeps_its_best_entries_up_to_its_budget(given_layer, plan, layer):
    scores, positions, seen = given_layer
    kept = retained(scores, positions, seen, plan, layer)
    for row, count in enumerate(seen.tolist()):
        for head in range(SMALL.kv_heads):
            order, protected = ranking(scores[row, head].tolist(), positions[row, head].tolist(), count, plan)
            # an infinite score is as good as protection, but of the two the earlier entry stays
            infinite = {slot for slot in order if scores[row, head, slot] == math.inf}
            order = sorted(
                order,
                key=lambda slot: (
                    (slot not in protected | infinite, -float(scores[row, head, slot]), slot)
                    if slot not in protected | infinite
                    else (False, 0, slot)
                ),
            )
            expected = set(order[: int(plan.per_layer(count)[layer])])
            assert expected == set(kept[row, head].nonzero().flatten().tolist())


finite = layers().map(lambda layer: (layer[0].clamp(-4, 4), *layer[1:]))


@laws
@given(finite, plans(pooled=True, levels=9), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(0, SMALL.layers - 1))
def test_pooled_heads_keep_the_best_entries_of_the_layer(given_layer, plan, floor, layer):
    scores, positions, seen = given_layer
    plan = attrs.evolve(plan, floor=floor)
    kept = retained(scores, positions, seen, plan, layer)
    for row, count in enumerate(seen.tolist()):
        capacity, pool, expected = int(plan.per_layer(count)[layer]), [], []
        for head in range(SMALL.kv_heads):
            order, protected = ranking(scores[row, head].tolist(), positions[row, head].tolist(), count, plan)
            safe = max(len(protected), int(floor * capacity + 1e-9))
            expected.append(set(order[:safe]))
            pool += [(-float(scores[row, head, slot]), head, slot) for slot in order[safe:]]
        room = capacity * SMALL.kv_heads - sum(map(len, expected))
        for _, head, slot in sorted(pool)[:room]:
            expected[head].add(slot)
        assert expected == [set(head.nonzero().flatten().tolist()) for head in kept[row]]


@laws
@given(layers(), plans(pooled=True), st.integers(1, 4), st.sampled_from([0.0, 0.2, 0.7]))
def test_levels_change_neither_the_total_nor_what_is_guaranteed(given_layer, plan, levels, floor):
    scores, positions, seen = given_layer
    plan = attrs.evolve(plan, levels=levels, floor=floor)
    kept, filled = retained(scores, positions, seen, plan, 0), positions >= 0
    for row, count in enumerate(seen.tolist()):
        capacity = int(plan.per_layer(count)[0])
        total = int(filled[row].sum())
        assert min(total, capacity * SMALL.kv_heads) == int(kept[row].sum())
        protected = filled[row] & ((positions[row] < plan.sinks) | (positions[row] >= count - plan.recent))
        assert not (protected & ~kept[row]).any()
        least = torch.minimum(filled[row].sum(dim=-1), torch.tensor(int(floor * capacity + 1e-9)))
        assert (kept[row].sum(dim=-1) >= least).all()
    assert not (kept & ~filled).any()


def test_of_equal_scores_the_earlier_entry_stays():
    positions = torch.tensor([[[0, 1, 2, 3, -1]]])
    kept = retained(torch.zeros(1, 1, 5), positions, torch.tensor([4]), plan(budget=2), 0)
    assert kept.tolist() == [[[True, True, False, False, False]]]


def test_an_empty_entry_never_stays_not_even_in_place_of_the_worst():
    positions = torch.tensor([[[0, -1], [0, 1]]])
    worst = torch.full((1, 2, 2), -math.inf)
    for pooled in (False, True):
        kept = retained(worst, positions, torch.tensor([2]), plan(budget=2, pooled=pooled), 0)
        assert kept.tolist() == [[[True, False], [True, True]]]


def test_half_precision_scores_are_ranked():
    scores = torch.tensor([[[0.5, 2.0, 1.0]]], dtype=torch.float16)
    kept = retained(scores, torch.tensor([[[0, 1, 2]]]), torch.tensor([3]), plan(budget=1), 0)
    assert kept.tolist() == [[[False, True, False]]]


@st.composite
def counted(draw):
    """Counts of heads with bounds that they meet: (counts, fewest, most)."""
    heads = draw(st.integers(1, 24))
    fewest = [draw(st.integers(0, 12)) for _ in range(heads)]
    counts = [least + draw(st.integers(0, 60)) for least in fewest]
    most = [count + draw(st.sampled_from([0, 0, 3, 100])) for count in counts]
    return counts, fewest, most


@laws
@given(counted(), st.integers(1, 9))
def test_levelled_counts_keep_their_sum_and_their_bounds(given_counts, levels):
    counts, fewest, most = given_counts
    found = levelled(list(counts), fewest, most, levels)
    assert sum(counts) == sum(found)
    assert all(least <= count <= top for least, count, top in zip(fewest, found, most, strict=True))


@laws
@given(counted(), st.integers(2, 9))
def test_levelled_counts_are_few(given_counts, levels):
    counts, fewest, most = given_counts
    found = set(levelled(list(counts), fewest, most, levels))
    assert len(found - set(fewest) - set(most)) <= levels + 1


@laws
@given(st.lists(st.integers(5, 400), min_size=1, max_size=32), st.integers(2, 9))
def test_levelled_counts_of_heads_with_room_are_few_and_near(counts, levels):
    found = levelled(list(counts), [5] * len(counts), [1000] * len(counts), levels)
    assert len(set(found)) <= levels + 1
    step = math.ceil((max(counts) - min(counts)) / (levels - 1))
    moved = [abs(count - before) for count, before in zip(found, counts, strict=True)]
    assert max(moved) <= 2 * step


def test_counts_that_are_few_already_are_left_alone():
    assert levelled([3, 9, 3, 4], [0] * 4, [9] * 4, 3) == [3, 9, 3, 4]


def test_counts_go_to_the_levels_between_the_smallest_and_the_largest():
    # levels 0, 10, 20; the rounding frees 3 + 8 + 4 + 6 = 21: a step to each of the two that lost most, 1 to the first
    assert levelled([0, 3, 8, 14, 16, 20], [0] * 6, [99] * 6, 3) == [0, 0, 11, 10, 20, 20]
