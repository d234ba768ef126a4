"""Which visual tokens each method keeps, against loops in float64 over its paper's rule and against counts by hand.

Sections and equations are named at each check; nothing is shared with the plugins or their slow references. VisPruner,
ToMe, VisionZip and DivPrune have a file of their own (``test_unlike_tokens``).
"""

from __future__ import annotations

import functools
import math
import statistics

import attrs
import numpy as np
import pytest
import torch

from headwise import Geometry, Pipeline, Recipe, shape
from headwise.head_weights import HeadWeights
from headwise.layout import IMAGE, SYSTEM, TEXT, Layout

TINY = Geometry(
    name="tiny", layers=8, heads=6, kv_heads=6, head_dim=4, hidden=24, intermediate=48, visual_tokens=120
)  # fmt: skip
LLAVA = shape("llava-1.5-7b")


@attrs.define(eq=False)
class Picture:
    """One image as evidence; what a test does not give cannot be asked for."""

    keep: int
    visual: int = 120
    scores: np.ndarray | None = None
    heads: np.ndarray | None = None
    states: np.ndarray | None = None
    long: np.ndarray | None = None
    words: np.ndarray | None = None
    long_words: np.ndarray | None = None
    cosine: np.ndarray | None = None
    image: int = 5
    side: tuple[int, int] | None = None
    asked: list = attrs.field(factory=list)
    batch = 1
    clip = "a folder"

    @property
    def grid(self):
        return self.side

    def attention(self, kind="attention"):
        self.asked.append(kind)
        return torch.tensor(self.scores)[None].float()

    def head_attention(self, kind="attention"):
        self.asked.append(kind)
        return torch.tensor(self.heads)[None].float()

    def hidden(self):
        return torch.tensor(self.states)[None].float()

    def keys(self):
        return torch.tensor(self.long)[None].float()

    def text(self):
        return torch.tensor(self.words)[None].float(), torch.ones(1, len(self.words), dtype=torch.bool)

    def text_keys(self):
        return torch.tensor(self.long_words)[None].float(), torch.ones(1, len(self.words), dtype=torch.bool)

    def clip_similarity(self, folder=None):
        return torch.tensor(self.cosine)[None].float()

    def note(self, key, values):
        pass

    def seeds(self):
        return torch.tensor([self.image])


def single(*shape, seed=0):
    """Random numbers that float32 holds exactly."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(np.float64)


def alike(tokens, width, spread, seed):
    """Tokens of a picture of one colour, the more so the smaller the spread; exact in float32."""
    states = 1 + spread * single(tokens, width, seed=seed)
    return states.astype(np.float32).astype(np.float64)


def outcome(text, picture, stage=0, **budget):
    pipeline, stages = prepared(text, picture.visual, **(budget or {"keep": picture.keep}))
    return pipeline.select(stages[stage], picture)


@functools.cache
def prepared(text, visual, **budget):
    pipeline = Pipeline(Recipe.of(text, **budget))
    return pipeline, pipeline.plan(attrs.evolve(TINY, visual_tokens=visual)).stages


def chosen(text, picture, **options):
    return outcome(text, picture, **options).positions[0].tolist()


def best(scores, count):
    return sorted(sorted(range(len(scores)), key=lambda j: -scores[j])[:count])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# FastV, and FinePruner's choice of heads within it


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("text", "heads"), [(("fastv",), 6), (("fastv", "sparsity", "fixed:heads=2"), 2)])
def test_fastv_keeps_what_the_last_row_of_the_whole_attention_map_likes(seed, text, heads):
    """Spec 1.1: s_j = mean over heads of A[h, last, j], j visual. 1.6: of the heads with the largest sum p^2 only."""
    system, visual, after = 4, 120, 7
    length = system + visual + after
    logits = np.random.default_rng(seed).normal(size=(6, length, length)) * 2
    logits[:, np.triu(np.ones((length, length), dtype=bool), 1)] = -np.inf
    maps = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    last = maps[:, -1, system : system + visual]
    sharp = [math.fsum((x / math.fsum(row)) ** 2 for x in row) for row in last.tolist()]
    mean = last[sorted(range(6), key=lambda h: -sharp[h])[:heads]].mean(axis=0)

    pipeline = Pipeline(Recipe.of(*text, keep=20))
    layout = Layout(np.array([[SYSTEM] * system + [IMAGE] * visual + [TEXT] * after], dtype=np.uint8))
    queries = pipeline.queries(layout)
    rows = torch.from_numpy(maps[:, queries.positions[0]][..., layout.image(0)]).float()[None]
    attention = pipeline.attend(rows, queries)
    choice = pipeline.choose_heads(attention, 0.3, lambda: torch.zeros(1))
    scores = pipeline.token_scores(attention, choice)[0]
    assert chosen(text[0], Picture(20, scores=scores.numpy())) == best(mean.tolist(), 20)


@pytest.mark.parametrize(
    ("tokens", "keep"), [(192, 166), (128, 98), (64, 30)]
)  # table 0.1: 32 layers, 576 tokens, before layer 2
@pytest.mark.parametrize("name", ["fastv", "dart", "random", "uniform"])
def test_counts_of_methods_that_prune_once_are_those_of_the_table(name, tokens, keep):
    plan = Pipeline(Recipe.of(f"token_pruning={name}:layer=2", tokens=tokens)).plan(LLAVA)
    assert [(stage.layer, stage.keep) for stage in plan.stages] == [(2, keep)]
    assert plan.average == pytest.approx((2 * 576 + 30 * keep) / 32)


# Controls


def test_a_random_choice_is_fair_repeatable_and_nested():
    drawn = [chosen("token_pruning=random", Picture(12, visual=24, image=image)) for image in range(600)]
    assert drawn == [chosen("token_pruning=random", Picture(12, visual=24, image=image)) for image in range(600)]
    counts = np.bincount(np.concatenate(drawn), minlength=24)
    # chi squared for 12 of 24 without replacement: variance 300 * 1/2 * 24/23; 23 degrees, one in a thousand
    assert ((counts - 300) ** 2 / (150 * 24 / 23)).sum() < 49.7
    for image in range(20):
        fewer = chosen("token_pruning=random", Picture(5, visual=24, image=image))
        assert set(fewer) < set(drawn[image])


@pytest.mark.parametrize(
    ("visual", "keep", "places"),
    [(10, 3, [1, 5, 8]), (4, 2, [1, 3]), (9, 9, list(range(9))), (7, 1, [3]), (8, 5, [0, 2, 4, 5, 7])],
)
def test_evenly_spaced_places_by_hand(visual, keep, places):
    """floor((i + 1/2) v / keep)."""
    assert chosen("uniform", Picture(keep, visual=visual)) == places


def test_pooling_averages_squares_of_two_by_two():
    """Average pooling: 24 x 24 tokens to 144 is the mean of 2 x 2; Conv-style, by hand from rows and columns."""
    kept = outcome("pooling", Picture(144, visual=576, side=(24, 24)))
    tokens = torch.arange(576, dtype=torch.float32)
    means = kept.weights[0] @ tokens
    expected = torch.nn.functional.avg_pool2d(tokens.view(1, 24, 24), 2).flatten()
    assert means.tolist() == expected.tolist()
    assert kept.positions[0].tolist() == [48 * (cell // 12) + 2 * (cell % 12) for cell in range(144)]


@pytest.mark.parametrize("keep", [1, 7, 64, 100, 575])
def test_pooling_puts_every_token_into_one_cell_of_nearly_one_size(keep):
    weights = outcome("pooling", Picture(keep, visual=576, side=(24, 24))).weights[0]
    assert ((weights > 0).sum(dim=0) == 1).all()
    assert weights.sum(dim=1).tolist() == pytest.approx([1] * keep, abs=1e-5)


# DART


@pytest.mark.parametrize("spread", [1.0, 1e-3])
@pytest.mark.parametrize("seed", range(4))
def test_dart_takes_of_every_pivot_the_tokens_least_like_it(seed, spread):
    """Spec 4: pivots are 4 image and 4 text tokens with the largest L1 norm of keys; each adds an equal quota."""
    states, words = alike(120, 16, spread, seed), alike(9, 16, spread, seed + 50)
    long, long_words = single(120, 8, seed=seed + 100), single(9, 8, seed=seed + 150)
    image = sorted(range(120), key=lambda j: -math.fsum(abs(long[j])))[:4]
    text = sorted(range(9), key=lambda j: -math.fsum(abs(long_words[j])))[:4]
    taken = list(image)
    for pivot in [states[j] for j in image] + [words[j] for j in text]:
        left = [j for j in range(120) if j not in taken]
        taken += sorted(left, key=lambda j, pivot=pivot: float(unit(states[j]) @ unit(pivot)))[:5]
    picture = Picture(44, states=states, words=words, long=long, long_words=long_words)
    assert chosen("dart", picture) == sorted(taken)


# CDPruner


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("theta", [None, 0.0, 0.6])
def test_cdpruner_adds_the_token_that_makes_the_determinant_largest(seed, theta):
    """Spec 1.5: K = diag(r) S diag(r), r = (rho - min + 1e-6) / (max - min), rho = -cosine; exp(a r) with theta."""
    states, cosine = single(120, 48, seed=seed), np.tanh(single(120, seed=seed + 9))
    similar = unit(states) @ unit(states).T
    rho = -cosine.astype(np.float32).astype(np.float64)
    r = (rho - rho.min() + 1e-6) / (rho.max() - rho.min())
    if theta is not None:
        r = np.exp(theta / (2 * (1 - theta)) * r)
    kernel = r[:, None] * similar * r
    picked = []
    for _ in range(24):
        left = [j for j in range(120) if j not in picked]
        volumes = np.linalg.slogdet(np.stack([kernel[np.ix_([*picked, j], [*picked, j])] for j in left]))[1]
        picked.append(left[int(volumes.round(12).argmax())])  # at theta=0 all first ones are equal: the lower stays
    option = "" if theta is None else f":theta={theta}"
    assert chosen(f"cdpruner{option}", Picture(24, states=states, cosine=cosine)) == sorted(picked)


# PyramidDrop


def test_pyramiddrop_halves_at_quarters_of_the_depth():
    """Spec 1.3: 576, 288, 144, 72 behind 8, 16, 24 layers: an average of 270, and 46.6 % of the FLOPs."""
    plan = Pipeline(Recipe.of("pdrop")).plan(LLAVA)
    assert plan.processed == (576,) * 8 + (288,) * 8 + (144,) * 8 + (72,) * 8
    assert plan.average == 270


def test_pyramiddrop_reads_the_next_layers_own_attention():
    scores = single(120, seed=3)
    picture = Picture(60, scores=scores)
    assert chosen("pdrop:ratios=0.5/0.25/0.125", picture, tokens=None) == best(scores.tolist(), 60)
    assert picture.asked == ["own"]


# FEATHER


def test_feathers_published_shares_are_met_by_their_average():
    """Spec 4: the best 0.3 and every ninth token, then 0.09 of these. By hand: .3 + .7 / 9 of 576 are 217.6, and 19.6
    of those; (8 * 576 + 8 * 217.6 + 16 * 19.6) / 32 = 208.2."""
    plan = Pipeline(Recipe.of("feather", tokens=208.2)).plan(LLAVA)
    assert [stage.layer for stage in plan.stages] == [8, 16]
    assert [stage.keep for stage in plan.stages] == pytest.approx([217.6, 19.6], abs=1.5)


def test_feather_keeps_every_ninth_token_and_the_best_of_the_rest():
    scores = single(576, seed=1)
    cover = [int((i + 0.5) * 576 / 64) for i in range(64)]  # every ninth: 4, 13, 22, ...
    assert cover == list(range(4, 576, 9))
    rest = [score if j not in cover else -math.inf for j, score in enumerate(scores.tolist())]
    picture = Picture(217, visual=576, scores=scores)
    assert chosen("feather", picture, tokens=300) == sorted([*cover, *best(rest, 153)])
    assert picture.asked == ["unrotated"]
    assert chosen("feather", Picture(20, visual=576, scores=scores), stage=1, tokens=300) == best(scores.tolist(), 20)


# SparseVLM


@pytest.mark.parametrize(
    ("setting", "totals", "reported", "processed"),
    [
        (192, (309, 204, 113), 192.0, 206.5),
        (128, (312, 117, 39), 128.6, 145.4),
        (96, (249, 55, 27), 96.9, 114.1),
        (64, (82, 32, 18), 64.8, 82.3),
    ],
)
def test_sparsevlm_counts_what_its_repository_and_its_layers_count(setting, totals, reported, processed):
    """Spec 1.2, "Budget check"."""
    plan = Pipeline(Recipe.of(f"sparsevlm:published={setting}")).plan(LLAVA)
    assert tuple(stage.keep for stage in plan.stages) == totals
    assert plan.reported == pytest.approx(reported, abs=0.06)
    assert plan.average == pytest.approx(processed, abs=0.06)


def clusters(points, count):
    """Density peaks (Du et al. 2016) as SparseVLM has them: who belongs to which centre."""
    n = len(points)
    distance = np.array([[math.dist(a, b) / math.sqrt(len(a)) for b in points] for a in points])
    density = [math.exp(-statistics.fmean(d * d for d in sorted(row)[:count])) for row in distance.tolist()]
    apart = []
    for i in range(n):
        denser = [distance[i, j] for j in range(n) if density[j] > density[i]]
        apart.append(min(denser) if denser else distance.max())
    centres = sorted(range(n), key=lambda i: -density[i] * apart[i])[:count]
    members = {centre: [centre] for centre in centres}
    for i in range(n):
        if i not in centres:
            members[min(centres, key=lambda c, i=i: distance[i, c])].append(i)
    return members


@pytest.mark.parametrize("spread", [1.0, 1e-3])
@pytest.mark.parametrize("seed", range(3))
def test_sparsevlm_merges_the_best_of_the_dropped_by_density_peaks(seed, spread):
    """Spec 1.2 at the setting 64: 66 stay; int(.3 * 510) + 1 = 154 next ones form int(.1 * 154) + 1 = 16 clusters."""
    scores, states = single(576, seed=seed), alike(576, 12, spread, seed + 30)
    kept = outcome("sparsevlm:published=64", Picture(82, visual=576, scores=scores, states=states), tokens=None)
    order = sorted(range(576), key=lambda j: -scores[j])
    recycled = sorted(order[66:220])
    expected = {place: [place] for place in order[:66]}
    for centre, members in clusters(states[recycled].tolist(), 16).items():
        expected[recycled[centre]] = sorted(recycled[i] for i in members)
    rows = zip(kept.positions[0].tolist(), kept.weights[0], strict=True)
    found = {place: row.nonzero().flatten().tolist() for place, row in rows}
    assert found == expected
    for row in kept.weights[0]:
        members = row[row > 0]
        assert members.tolist() == pytest.approx([1 / len(members)] * len(members))  # a mean of its members


# Calibrated


def test_calibrated_weighs_heads_by_what_leaving_them_out_cost(tmp_path):
    """Spec 4 (HAWK): static head weights times attention, and no head counts negatively."""
    weights = np.zeros((8, 6))
    weights[1] = [0.5, -2.0, 0.0, 3.0, 1.0, -0.1]
    HeadWeights(model="tiny", weights=weights).save(tmp_path / "w.json")
    heads = np.abs(single(6, 120, seed=2))
    scores = 0.5 * heads[0] + 3.0 * heads[3] + 1.0 * heads[4]
    picture = Picture(15, heads=heads)
    assert chosen(f"calibrated:layer=2,weights={tmp_path / 'w.json'}", picture) == best(scores.tolist(), 15)


def test_nothing_is_pruned_by_none():
    assert Pipeline(Recipe.of("token_pruning=none")).plan(LLAVA).processed == (576,) * 32
