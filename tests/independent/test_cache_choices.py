"""Which key-value entries each method keeps: loops in float64 over its paper's rule, and numbers worked out by hand.

Sections name the notes on KV eviction (part 1 and 2) or the paper. A prompt has been read whole, nothing was evicted
before. Nothing is shared with the plugins, the conformance kit or the slow references.
"""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import torch

from headwise import Geometry, Pipeline, Recipe
from headwise.heads import HeadLabels, HeadProfile

HEADS, KV_HEADS, WIDTH = 6, 3, 8
GROUP = HEADS // KV_HEADS
TINY = Geometry(
    name="tiny", layers=4, heads=HEADS, kv_heads=KV_HEADS, head_dim=WIDTH, hidden=48, intermediate=96, visual_tokens=0
)  # fmt: skip


def turn(position):
    """The rotary matrix of a position: pairs (i, i + 4) turned by position / 100^(i / 4)."""
    matrix = np.zeros((WIDTH, WIDTH))
    for i in range(WIDTH // 2):
        angle, j = position * 100.0 ** (-i / (WIDTH // 2)), i + WIDTH // 2
        matrix[[i, i, j, j], [i, j, i, j]] = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    return matrix


class Prompt:
    """What a layer has read: q (heads, n, d), k and v (kv_heads, n, d) before rotation, and the attention of it all."""

    layer = 1

    def __init__(self, tokens, seed=0, spread=1.0):
        rng = np.random.default_rng(seed)
        draw = [rng.normal(size=(heads, tokens, WIDTH)) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        draw[0] *= np.repeat([3.0, 1.0, 0.2], GROUP)[:, None, None]  # heads that are picky, and others that are not
        self.q, self.k, self.v = ((0.3 + spread * x).astype(np.float32).astype(np.float64) for x in draw)
        turns = [turn(position) for position in range(tokens)]
        rotated = [np.stack([[turns[i] @ row[i] for i in range(tokens)] for row in x]) for x in (self.q, self.k)]
        self.rotated_k = rotated[1].astype(np.float32).astype(np.float64)
        logits = np.stack([rotated[0][h] @ rotated[1][h // GROUP].T / math.sqrt(WIDTH) for h in range(HEADS)])
        logits[:, np.triu(np.ones((tokens, tokens), dtype=bool), 1)] = -np.inf
        self.maps = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)  # (heads, n, n)
        self.tokens = tokens
        self.seen = torch.tensor([tokens])
        self.positions = torch.arange(tokens).expand(1, KV_HEADS, -1)

    @property
    def keys(self):
        return torch.from_numpy(self.rotated_k)[None].float()

    @property
    def values(self):
        return torch.from_numpy(self.v)[None].float()

    def attention(self, count):
        return torch.from_numpy(self.maps[:, -count:])[None].float()

    def accumulated_attention(self):
        return torch.from_numpy(self.maps.sum(axis=1))[None].float()

    def queries(self, count):
        return torch.from_numpy(self.q[:, -count:])[None].float()

    def rotate(self, states, distance):
        turns = torch.from_numpy(np.stack([turn(int(one)) for one in distance.flatten()])).float()
        turns = turns.view(*distance.shape, WIDTH, WIDTH)
        return (turns @ states.unsqueeze(-1)).squeeze(-1)


def kept(text, prompt):
    """Per KV head, the entries that stay."""
    pipeline = Pipeline(Recipe.of(f"kv_eviction={text}"))
    stays = pipeline.retained(pipeline.eviction(TINY), prompt)[0]
    return [row.nonzero().flatten().tolist() for row in stays]


def best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda j: -scores[j])[:count])


def mean_of_group(per_head, kv_head):
    return statistics.fmean(per_head[kv_head * GROUP : (kv_head + 1) * GROUP])


def snap(prompt, window, kernel):
    """Part 2, "Snap(W, c)": (kv_heads, n) with the window at infinity."""
    old, scores = prompt.tokens - window, []
    for g in range(KV_HEADS):
        mean = [mean_of_group([statistics.fmean(prompt.maps[h, old:, j]) for h in range(HEADS)], g) for j in range(old)]
        half = kernel // 2
        pooled = [math.fsum(mean[max(0, j - half) : j + half + 1]) / kernel for j in range(old)]
        scores.append(pooled + [math.inf] * window)
    return scores


SEEDS = pytest.mark.parametrize("seed", range(3))


@SEEDS
def test_tova_keeps_what_the_last_query_of_all_heads_likes(seed):
    """Oren et al., section 4; 1.2: last query's attention averaged over heads, the same tokens in all heads."""
    prompt = Prompt(40, seed)
    scores = [statistics.fmean(prompt.maps[:, -1, j]) for j in range(40)]
    assert kept("tova:budget=12", prompt) == [best(scores, 12)] * KV_HEADS


@SEEDS
def test_h2o_keeps_heavy_hitters_beside_as_many_recent_ones(seed):
    """Zhang et al., algorithm 1 with a cache of k = 12: 6 recent, and the 6 with the largest sum of attention."""
    prompt = Prompt(40, seed)
    for g, entries in enumerate(kept("h2o:budget=12", prompt)):
        accumulated = [mean_of_group([math.fsum(prompt.maps[h, :, j]) for h in range(HEADS)], g) for j in range(34)]
        assert entries == best(accumulated, 6) + list(range(34, 40))


@SEEDS
@pytest.mark.parametrize(("window", "kernel"), [(8, 5), (4, 1), (8, 7)])
def test_snapkv_keeps_what_the_window_attends_to_pooled(seed, window, kernel):
    prompt = Prompt(50, seed)
    expected = [best(scores, 16) for scores in snap(prompt, window, kernel)]
    assert kept(f"snapkv:budget=16,queries={window},recent={window},kernel={kernel}", prompt) == expected


@SEEDS
@pytest.mark.parametrize(("floor", "own"), [(0.2, 3), (0.8, 12)])
def test_adakv_lets_heads_compete_above_a_floor(seed, floor, own):
    """Feng et al., algorithm 1: the best of the layer together, each head sure of floor * budget of its own 16."""
    prompt = Prompt(50, seed)
    scores = snap(prompt, 4, 5)
    sure = {(g, j) for g in range(KV_HEADS) for j in best(scores[g], own)}
    rest = [(g, j) for g in range(KV_HEADS) for j in range(50) if (g, j) not in sure]
    rest.sort(key=lambda one: -scores[one[0]][one[1]])
    chosen = sure | set(rest[: 16 * KV_HEADS - len(sure)])
    expected = [sorted(j for g, j in chosen if g == head) for head in range(KV_HEADS)]
    assert kept(f"adakv:of=[snapkv:budget=16,queries=4,recent=4,kernel=5],floor={floor}", prompt) == expected
    assert len({len(entries) for entries in expected}) > 1


def test_pyramidkv_divides_an_arithmetic_series_over_layers():
    """Cai et al., equation 4: behind the window of 8, the last layer has 100 / 20 = 5, the first 2 * 100 - 5 = 195."""
    plan = Pipeline(Recipe.of("pyramidkv:budget=108,queries=8,recent=8,beta=20")).eviction(TINY)
    assert plan.per_layer(1000).tolist() == [8 + round(195 - step * 190 / 3) for step in range(4)]
    assert plan.per_layer(1000).sum() == 4 * 108


@SEEDS
def test_pyramidkv_scores_as_snapkv(seed):
    prompt = Prompt(90, seed)
    # layer 1 of 4: 8 + 20 * (1.95 - 1.9 / 3) = 34.33, and the rounding of the four layers leaves 34
    expected = [best(scores, 34) for scores in snap(prompt, 8, 5)]
    assert kept("pyramidkv:budget=28,queries=8,recent=8,kernel=5,beta=20", prompt) == expected


@SEEDS
def test_knorm_keeps_short_keys(seed):
    """Devoto et al. 2024: the lowest L2 norms of keys; rotation changes none."""
    prompt = Prompt(40, seed)
    norms = [[-math.dist(row, [0] * WIDTH) for row in prompt.k[g]] for g in range(KV_HEADS)]
    assert kept("knorm:budget=12", prompt) == [best(scores, 12) for scores in norms]


@SEEDS
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_keydiff_keeps_keys_least_like_their_mean(seed, spread):
    """Park et al., algorithm 1: the anchor is the mean of unit keys, cosine to it, the lowest stay."""
    prompt = Prompt(40, seed)
    prompt.rotated_k = (1 + spread * prompt.rotated_k).astype(np.float32).astype(np.float64)
    expected = []
    for g in range(KV_HEADS):
        units = [row / math.dist(row, [0] * WIDTH) for row in prompt.rotated_k[g]]
        anchor = np.array([math.fsum(column) / 40 for column in zip(*units, strict=True)])
        expected.append(best([-float(u @ anchor) for u in units], 12))
    assert kept("keydiff:budget=12", prompt) == expected


@SEEDS
def test_lagkv_keeps_half_of_each_partition_judged_by_the_next(seed):
    """Liang et al., equations 1 to 5: 4 sinks, partitions of 8, the last one whole; 4 + 3 * 4 + 8 = 24 of 36."""
    prompt = Prompt(36, seed)
    expected = []
    for g in range(KV_HEADS):
        entries = [0, 1, 2, 3, *range(28, 36)]
        for first in (4, 12, 20):
            total = np.zeros(8)
            for states in (prompt.rotated_k[g], prompt.v[g]):
                own, after = states[first : first + 8], states[first + 8 : first + 16]
                scaled = (own - after.min(axis=0)) / (after.max(axis=0) - after.min(axis=0))
                deviation = np.array([statistics.stdev(row) for row in scaled.tolist()])
                total += np.exp(deviation) / np.exp(deviation).sum()
            entries += [first + j for j in best(total.tolist(), 4)]
        expected.append(sorted(entries))
    assert kept("lagkv:budget=24,sinks=4,lag=8", prompt) == expected


@SEEDS
@pytest.mark.parametrize("epsilon", [0.0, 0.02])
def test_expected_attention_takes_future_queries_for_a_gaussian(seed, epsilon):
    """Devoto et al. 2025, equations 4 to 8, as kvpress has them: mean and covariance of the unrotated queries, turned
    by the mean rotation of the next 32 positions; exp(mu.k / sqrt d + k.cov.k / 2d), its share, times ||v||."""
    prompt = Prompt(40, seed)
    average = np.mean([turn(40 + ahead) for ahead in range(32)], axis=0)
    expected = []
    for g in range(KV_HEADS):
        shares = []
        for h in range(g * GROUP, (g + 1) * GROUP):
            asked = prompt.q[h, 4:]
            mean, covariance = average @ asked.mean(axis=0), average @ np.cov(asked.T, bias=True) @ average.T
            weight = [
                math.exp(mean @ k / math.sqrt(WIDTH) + k @ covariance @ k / (2 * WIDTH))
                for k in prompt.rotated_k[g, 4:]
            ]
            shares.append([w / math.fsum(weight) for w in weight])
        scores = [
            (statistics.fmean(pair) + epsilon) * math.dist(v, [0] * WIDTH)
            for *pair, v in zip(*shares, prompt.v[g, 4:], strict=True)
        ]
        expected.append([0, 1, 2, 3, *(4 + j for j in best(scores, 12))])
    text = f"expected_attention:budget=16,sinks=4,queries=40,future=32,epsilon={epsilon}"
    assert kept(text, prompt) == expected


def test_random_entries_are_a_fair_sample_that_stays_what_it_was():
    counts, prompt = np.zeros(40), Prompt(40)
    for seed in range(200):
        rows = kept(f"random:budget=10,seed={seed}", prompt)
        smaller = kept(f"random:budget=6,seed={seed}", prompt) if seed < 10 else [[]] * KV_HEADS
        for few, row in zip(smaller, rows, strict=True):
            assert set(few) <= set(row)  # a token draws the same number at every eviction
            counts[row] += 1
        assert seed > 3 or len({tuple(row) for row in rows}) == KV_HEADS
    # chi squared of 10 of 40 without replacement, 600 times: 39 degrees, one in a thousand
    assert ((counts - 150) ** 2 / (150 * 0.75 * 40 / 39)).sum() < 72.1


# Windows


def profile(names, labels, confidence=None, windows=(), mass=None):
    labels = np.array(labels)
    sure = np.ones(labels.shape) if confidence is None else np.array(confidence)
    found = HeadLabels(names=names, labels=labels, confidence=sure)
    return HeadProfile(model="tiny", labels=found, windows=windows, mass=mass)


def windows(text, given=None, geometry=TINY):
    plan = Pipeline(Recipe.of(f"kv_eviction={text}", profile=given)).eviction(geometry)
    return plan.sinks.tolist(), plan.windows.tolist()


def test_plain_windows_by_hand():
    whole = [[64] * KV_HEADS] * 4
    assert windows("window:window=64") == ([[0] * KV_HEADS] * 4, whole)
    assert windows("streaming:sinks=4,window=64") == ([[4] * KV_HEADS] * 4, whole)
    plan = Pipeline(Recipe.of("streaming:sinks=4,window=60")).eviction(TINY)
    assert [plan.visible(seen)[0, 0] for seen in (1, 10, 64, 65, 1000)] == [1, 10, 64, 64, 64]
    everything = Pipeline(Recipe.of("kv_eviction=none")).eviction(TINY)
    assert everything.keeps_everything
    assert everything.visible(10**6).min() == 10**6


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("positional=256,mixed=128,gathering=128", 178.25),
        ("positional=512,mixed=64,gathering=128", 235.375),
        ("positional=64,mixed=64,gathering=64", 68.0),
    ],
)
def test_contexts_of_the_head_aware_study_are_those_of_its_counts(text, context):
    """Part 1, section 0: 370 positional, 566 mixed, 88 gathering of 1024 heads, and four sinks."""
    pythia = Geometry(
        name="pythia", layers=32, heads=32, kv_heads=32, head_dim=80, hidden=2560, intermediate=10240, visual_tokens=0
    )  # fmt: skip
    labels = np.repeat([0, 1, 2], [370, 566, 88]).reshape(32, 32)
    plan = Pipeline(
        Recipe.of(f"head_windows:{text}", profile=profile(("positional", "mixed", "gathering"), labels))
    ).eviction(pythia)
    assert plan.context(10**6) == pytest.approx(context)


def test_a_kv_head_has_the_widest_window_of_its_query_heads_by_hand():
    names = ("positional", "mixed", "gathering")
    labels = [[0, 0, 0, 1, 1, 2]] * 4
    assert windows("head_windows:positional=8,mixed=32,gathering=100", profile(names, labels))[1] == [[8, 32, 100]] * 4


def test_only_sure_heads_have_the_window_of_their_class_by_hand():
    names = ("positional", "mixed", "gathering")
    given = profile(names, [[0, 0, 1, 1, 2, 2]] * 4, [[0.9, 0.9, 0.5, 0.5, 0.59, 0.6]] * 4)
    text = "confidence_windows:threshold=0.6,base=64,positional=16,mixed=32,gathering=256"
    assert windows(text, given)[1] == [[16, 64, 256]] * 4


@pytest.mark.parametrize("within", ["model", "layer"])
def test_permuted_windows_are_the_same_windows_elsewhere(within):
    names, labels = ("positional", "mixed", "gathering"), np.random.default_rng(0).integers(0, 3, (4, 6))
    text = "head_windows:positional=8,mixed=32,gathering=100"
    informed = windows(text, profile(names, labels))[1]
    dealt = [windows(f"permuted:of=[{text}],seed={s},within={within}", profile(names, labels))[1] for s in range(40)]
    for rows in dealt:
        if within == "layer":
            assert [sorted(row) for row in rows] == [sorted(row) for row in informed]
        assert sorted(itertools.chain(*rows)) == sorted(itertools.chain(*informed))
    assert len({str(rows) for rows in dealt}) > 20


@SEEDS
def test_allocated_windows_hold_as_much_attention_as_any_windows_could(seed):
    """Part 1, 5.2: minimise what is lost, the sum given; against all ways to divide 24 entries on concave curves."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(
        name="four", layers=2, heads=2, kv_heads=2, head_dim=4, hidden=8, intermediate=16, visual_tokens=0
    )  # fmt: skip
    gains = np.sort(rng.random((4, 16)), axis=1)[:, ::-1]
    mass = gains.cumsum(axis=1) / gains.sum()
    given = profile(("any",), np.zeros((2, 2), dtype=int), None, tuple(range(1, 17)), mass.reshape(2, 2, 16))
    found = list(itertools.chain(*windows("allocated:budget=7,sinks=1,floor=0,levels=8", given, geometry)[1]))
    assert sum(found) == 24

    def held(division):
        return math.fsum(mass[head, window - 1] for head, window in enumerate(division))

    every = (d for d in itertools.product(range(1, 17), repeat=4) if sum(d) == 24)
    assert held(found) == pytest.approx(max(map(held, every)))
