"""Head scores against loops in float64 over the formulas, and against numbers worked out by hand.

The formulas are those of the table of definitions (visual pruning 3.1), with natural logarithms; x is the attention of
a head to the visual tokens, p = x / sum x. Nothing is shared with the plugins or with their slow references, and no
value is rounded: heads that differ are told apart, however little they differ.
"""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import torch

from headwise import Pipeline, Recipe


def scored(text, attention, count="all", share=0.3):
    """(h,) scores of one image's attention (h, v)."""
    pipeline = Pipeline(Recipe.of(f"head_scoring={text}", f"head_count={count}"))
    given = torch.tensor(attention, dtype=torch.float32)[None]
    return pipeline.choose_heads(given, share, lambda: torch.zeros(1, dtype=torch.int64)).scores[0].tolist()


def drawn(seed, heads=8, tokens=30, evenness=1.0):
    """Attention of heads: everything that a head gives the image differs, by as little as ``evenness`` says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(heads, tokens)) * evenness * rng.uniform(0.5, 1.5, size=(heads, 1))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return (p * rng.uniform(0.2, 0.9, size=(heads, 1))).astype(np.float32).astype(np.float64)


def entropy(p):
    return -math.fsum(q * math.log(q) for q in p if q > 0)


def share(row):
    return [x / math.fsum(row) for x in row]


def cosine(p, q):
    return math.fsum(a * b for a, b in zip(p, q, strict=True)) / math.dist(p, [0] * len(p)) / math.dist(q, [0] * len(q))


def spread(values):
    """Scaled to 0..1."""
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def gini(p):
    """Half the mean absolute difference of all pairs, relative to the mean (Gini's own definition)."""
    n = len(p)
    return math.fsum(abs(a - b) for a, b in itertools.product(p, p)) / (2 * n * n * (math.fsum(p) / n))


ALONE = {
    "sum": math.fsum,
    "variance": statistics.variance,
    "entropy": lambda x: 1 - entropy(share(x)) / math.log(len(x)),
    "max_attention": max,
    "attention_range": lambda x: max(x) - min(x),
    "sparsity": lambda x: math.fsum(p * p for p in share(x)),
    "sparsity:form=raw": lambda x: math.dist(x, [0] * len(x)),
    "sparsity:form=hoyer": lambda x: (
        (math.sqrt(len(x)) - math.fsum(x) / math.dist(x, [0] * len(x))) / (math.sqrt(len(x)) - 1)
    ),
    "top_k_sum:k=7": lambda x: math.fsum(sorted(x)[-7:]),
    "gini_coefficient": lambda x: gini(share(x)),
    "weighted_quality": lambda x: (
        0.4 * max(share(x))
        + 0.4 * math.fsum(p * p for p in share(x))
        + 0.2 / sum(p >= 0.1 * max(share(x)) for p in share(x))
    ),
}
"""Scores that a head has whatever other heads there are."""


@pytest.mark.parametrize("text", ALONE)
@pytest.mark.parametrize("evenness", [3.0, 1.0, 0.1])
def test_a_head_scores_what_the_formula_says(text, evenness):
    attention = drawn(1, evenness=evenness)
    expected = [ALONE[text](row.tolist()) for row in attention]
    assert scored(text, attention) == pytest.approx(expected, rel=1e-4, abs=1e-6)


HAND = {
    "sum": (0.8, 0.4),
    "variance": (0.06 / 3, 0.0),  # mean .2, deviations .2 -.1 -.1 0
    "max_attention": (0.4, 0.1),
    "attention_range": (0.3, 0.0),
    "top_k_sum:k=2": (0.6, 0.2),
    "sparsity": (0.34375, 0.25),  # p = 1/2 1/8 1/8 1/4: 1/4 + 1/64 + 1/64 + 1/16
    "entropy": (1 - 1.75 / 2, 0.0),  # in bits: 1/2 + 3/8 + 3/8 + 2/4 of 2
    "gini_coefficient": (0.3125, 0.0),  # (-3/8 - 1/8 + 1/4 + 3/2) / 4
    "weighted_quality": (0.4 * 0.5 + 0.4 * 0.34375 + 0.2 / 4, 0.4 * 0.25 + 0.4 * 0.25 + 0.2 / 4),
}


@pytest.mark.parametrize("text", HAND)
def test_numbers_worked_out_by_hand(text):
    assert scored(text, [[0.4, 0.1, 0.1, 0.2], [0.1, 0.1, 0.1, 0.1]]) == pytest.approx(HAND[text], abs=1e-6)


def multi_objective(rows):
    ps = [share(row) for row in rows]
    kurtosis = []
    for p in ps:
        mean = 1 / len(p)
        second, fourth = (statistics.fmean((q - mean) ** power for q in p) for power in (2, 4))
        kurtosis.append(fourth / second**2)
    apart = [1 / (statistics.fmean(cosine(p, q) for q in ps if q is not p) + 1e-6) for p in ps]
    terms = zip(
        spread([entropy(p) for p in ps]),
        spread(kurtosis),
        spread(apart),
        spread([math.fsum(q * q for q in p) for p in ps]),
        strict=True,
    )
    return [0.4 * (0.7 * rich + 0.3 * tailed) + 0.3 * far + 0.3 * peaked for rich, tailed, far, peaked in terms]


def graph_based(rows, threshold=0.1):
    ps = [share(row) for row in rows]
    columns = []
    for feature in (
        lambda p: math.fsum(q * q for q in p),
        entropy,
        max,
        statistics.pvariance,
        lambda p: sum(q > 1 / len(p) for q in p) / len(p),
    ):
        values = [feature(p) for p in ps]
        deviation = statistics.pstdev(values)
        columns.append([(value - statistics.fmean(values)) / deviation if deviation else 0.0 for value in values])
    for _ in range(2):
        passed = []
        for column in columns:
            added = []
            for i, p in enumerate(ps):
                near = [column[j] for j, q in enumerate(ps) if j != i and cosine(p, q) > threshold]
                added.append(column[i] + (statistics.fmean(near) if near else 0.0))
            passed.append(added)
        columns = passed
    return [statistics.fmean(values) for values in zip(*columns, strict=True)]


def hierarchical(rows, target):
    ps, most = [share(row) for row in rows], math.log(len(rows[0]))
    coarse = [0.6 * math.fsum(q * q for q in p) + 0.4 * (1 - entropy(p) / most) for p in ps]
    count = min(len(ps), max(2 * target, target + 4))
    survivors = sorted(range(len(ps)), key=lambda head: -coarse[head])[:count]
    units = {head: [q / math.dist(ps[head], [0] * len(rows[0])) for q in ps[head]] for head in survivors}
    centre = [statistics.fmean(values) for values in zip(*units.values(), strict=True)]
    rich = spread([entropy(ps[head]) for head in survivors])
    far_from_even = spread([most - entropy(ps[head]) for head in survivors])
    distinct = spread([math.dist(units[head], centre) for head in survivors])
    steady = spread([1 / (statistics.pstdev(ps[head]) + 1e-6) for head in survivors])
    found = [-math.inf] * len(ps)
    for place, head in enumerate(survivors):
        found[head] = 0.3 * rich[place] + 0.25 * far_from_even[place] + 0.25 * distinct[place] + 0.2 * steady[place]
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("evenness", [2.0, 0.3, 3e-3])
@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("multi_objective", "all", multi_objective),
        ("graph_based", "all", graph_based),
        ("graph_based:threshold=0.6", "all", lambda rows: graph_based(rows, 0.6)),
        ("hierarchical", "fixed:heads=2", lambda rows: hierarchical(rows, 2)),
        ("hierarchical", "fixed:heads=5", lambda rows: hierarchical(rows, 5)),
    ],
)
def test_scores_among_heads_tell_apart_whatever_differs(text, count, expected, seed, evenness):
    attention = drawn(seed, evenness=evenness)
    assert scored(text, attention, count) == pytest.approx(expected(attention.tolist()), abs=2e-3)


def median_count(scores, low, high):
    """Spec 3.3: the median of gap, quality and contribution, within bounds."""
    ranked = sorted(scores, reverse=True)
    gaps = [a - b for a, b in itertools.pairwise(ranked)]
    wide = statistics.fmean(gaps) + 0.8 * statistics.stdev(gaps)
    by_gap = next((place + 1 for place, gap in enumerate(gaps) if gap > wide), high)
    by_quality = sum(s > statistics.fmean(scores) - 0.3 * statistics.stdev(scores) for s in scores)
    shift = min(0.0, *scores)
    held = list(itertools.accumulate(s - shift for s in ranked))
    by_share = 1 + sum(h <= 0.85 * held[-1] for h in held)
    return min(max(statistics.median([by_gap, by_quality, by_share]), low), high)


def adaptive(rows, names, low, high):
    """Spec 3.3: each candidate's heads by the median rule, then the best quality; -inf beyond the choice."""
    best = None
    for name in names:
        own = hierarchical(rows, len(rows)) if name == "hierarchical" else COMPANY[name](rows)
        count = median_count(own, low, high)
        kept = sorted(range(len(rows)), key=lambda head, own=own: -own[head])[:count]
        ps, unit = [rows[head] for head in kept], spread(own)
        pairs = [cosine(p, q) for p, q in itertools.permutations(ps, 2)]
        diversity = 1 - statistics.fmean(pairs) if pairs else 0.0
        held = [unit[head] for head in kept]
        deviation = statistics.stdev(held) if len(held) > 1 else 0.0
        largest = [max(measure(row) for row in rows) for measure in (statistics.pvariance, max)]
        sharpness = math.prod(
            statistics.fmean(measure(p) for p in ps) / most
            for measure, most in zip((statistics.pvariance, max), largest, strict=True)
        )
        quality = 0.3 * diversity + 0.3 * (deviation + max(held) - min(held)) / 2 + 0.4 * sharpness
        if best is None or quality > best[0]:
            best = (quality, [unit[head] if head in kept else -math.inf for head in range(len(rows))])
    return best[1]


COMPANY = {
    "graph_based": graph_based,
    "multi_objective": multi_objective,
    **{name: lambda rows, name=name: [ALONE[name](row) for row in rows] for name in ("attention_range", "sparsity")},
    "top_k_sum": lambda rows: [math.fsum(sorted(row)[-10:]) for row in rows],
    "max_attention": lambda rows: [max(row) for row in rows],
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("budget", "names", "bounds"),
    [
        (0.1, ("graph_based", "multi_objective", "attention_range"), (6, 18)),
        (0.25, ("sparsity", "hierarchical", "top_k_sum", "max_attention"), (8, 26)),
    ],
)
def test_the_adaptive_choice_is_the_best_of_all_candidates(seed, budget, names, bounds):
    attention = drawn(seed, heads=32, evenness=1.5)
    found = scored("adaptive", attention, share=budget)
    assert found == pytest.approx(adaptive(attention.tolist(), names, *bounds), abs=2e-4)


def test_random_scores_depend_on_image_and_seed_alone_and_are_evenly_drawn():
    pipeline = Pipeline(Recipe.of("head_scoring=random:seed=3"))
    seeds = torch.arange(400)
    first = pipeline.choose_heads(torch.rand(400, 16, 5), 0.3, lambda: seeds).scores
    again = pipeline.choose_heads(torch.rand(400, 16, 5).double().float(), 0.3, lambda: seeds).scores
    assert torch.equal(first, again)
    assert not torch.equal(
        first,
        Pipeline(Recipe.of("head_scoring=random:seed=4"))
        .choose_heads(torch.rand(400, 16, 5), 0.3, lambda: seeds)
        .scores,
    )
    assert len(first.flatten().unique()) > 6300  # of 6400
    wins = first.argmax(dim=1).bincount(minlength=16)
    assert float(((wins - 25.0) ** 2 / 25).sum()) < 37.7  # chi squared of 15 degrees, one in a thousand
