"""VisPruner, ToMe, VisionZip and DivPrune at full size against loops over numbers that nobody rounds.

Written from the papers' sections named below, in numpy and float64, sharing nothing with the plugins or with the slow
references of the other tests. Random pictures have no ties, so no rule for equals is needed; duplicates are tried
apart, where the rule is that the lower position stays.
"""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headwise import Geometry, Pipeline, Recipe
from headwise.similarity import cosines

GEOMETRY = Geometry(
    name="576 tokens", layers=32, heads=4, kv_heads=4, head_dim=8, hidden=32, intermediate=64, visual_tokens=576
)  # fmt: skip


@attrs.frozen(eq=False)
class Picture:
    """One image as evidence: whatever is asked of its tokens, it is these numbers."""

    tokens: NDArray[np.float64]
    salient: NDArray[np.float64] | None
    keep: int
    batch = 1
    visual = 576

    def features(self):
        return torch.from_numpy(self.tokens).float()[None]

    vision_keys = hidden = features

    def saliency(self):
        return torch.from_numpy(self.salient).float()[None]


def outcome(name, tokens, salient, keep):
    """What the method's only stage makes of a picture, checked by the pipeline."""
    pipeline = Pipeline(Recipe.of(f"token_pruning={name}", keep=keep))
    (stage,) = pipeline.plan(GEOMETRY).stages
    return pipeline.select(stage, Picture(tokens, salient, keep))


def chosen(name, tokens, salient, keep):
    """The kept set."""
    return set(outcome(name, tokens, salient, keep).positions[0].tolist())


def merged(name, tokens, keep, salient=None):
    """Place -> the tokens whose sum stands there."""
    kept = outcome(name, tokens, salient, keep)
    return {
        place: row.nonzero().flatten().tolist()
        for place, row in zip(kept.positions[0].tolist(), kept.weights[0], strict=True)
    }


def picture(seed: int, width: int = 64, spread: float = 1.0) -> NDArray[np.float64]:
    """576 tokens whose cosines lie close together where ``spread`` is small, as in a picture of one colour."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=width) + spread * rng.normal(size=(576, width))
    return tokens.astype(np.float32).astype(np.float64)


def cosine_table(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("spread", [1.0, 0.01, 2e-3])
@pytest.mark.parametrize("seed", range(4))
def test_different_tokens_are_told_apart_however_alike_they_are(seed, spread):
    tokens = picture(seed, spread=spread)
    found = cosines(torch.from_numpy(tokens).float()[None])[0].numpy()
    table = cosine_table(tokens)
    off = ~np.eye(576, dtype=bool)
    assert np.abs(found - table).max() < 1e-12
    assert len(np.unique(found[off])) >= 0.99 * 576 * 575 / 2


def vispruner(saliency, tokens, keep, important, step):
    """Visual-cue pruning (arXiv 2412.01818, section 3.3 and algorithm): returns the kept set."""
    table, order = cosine_table(tokens), list(np.argsort(-saliency))
    kept, rest = order[:important], order[important:]
    while len(rest) > keep - important:
        leaving = min(step, len(rest) - (keep - important))
        a, b = rest[0::2], rest[1::2]
        closest = [(max(table[i, j] for j in b), i) for i in a]
        closest.sort(reverse=True)
        gone = {i for _, i in closest[:leaving]}
        rest = [i for _, i in closest if i not in gone] + b
    return {int(i) for i in kept + rest}


@pytest.mark.parametrize("spread", [1.0, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_vispruner_keeps_what_the_published_rounds_keep_at_full_size(seed, spread):
    tokens = picture(seed, spread=spread)
    saliency = np.random.default_rng(100 + seed).random(576)
    found = chosen("vispruner", tokens, saliency, keep=64)
    assert found == vispruner(saliency, tokens, 64, 32, 8)


def tome_groups(tokens, keep):
    """Bipartite soft matching (arXiv 2210.09461, section 3): place -> members, half of the tokens at most a round."""
    here = [(i, [i]) for i in range(len(tokens))]
    while len(here) > keep:
        merging = min(len(here) - keep, len(here) // 2)
        a, b = here[0::2], here[1::2]
        mean_a = np.array([tokens[members].mean(axis=0) for _, members in a])
        mean_b = np.array([tokens[members].mean(axis=0) for _, members in b])
        unit_a, unit_b = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (mean_a, mean_b))
        table = unit_a @ unit_b.T
        best, partner = table.max(axis=1), table.argmax(axis=1)
        order = np.argsort(-best)
        joined = [(place, list(members)) for place, members in b]
        for i in order[:merging]:
            joined[partner[i]][1].extend(a[i][1])
        here = [a[i] for i in order[merging:]] + joined
    return {place: sorted(members) for place, members in here}


@pytest.mark.parametrize("spread", [1.0, 0.02])
def test_tome_merges_what_bipartite_matching_merges_at_full_size(spread):
    tokens = picture(7, spread=spread)
    found = merged("tome", tokens, keep=64)
    assert found == tome_groups(tokens, 64)


def visionzip_groups(saliency, tokens, keep):
    """Section 3.3 of arXiv 2412.04467: who belongs to which contextual target."""
    dominant = int(keep * 0.84375 + 0.5)
    rest = sorted(np.argsort(-saliency)[dominant:])
    targets = rest[:: len(rest) // (keep - dominant)][: keep - dominant]
    table = cosine_table(tokens)
    groups = {int(target): [int(target)] for target in targets}
    for token in rest:
        if token not in targets:
            groups[int(max(targets, key=lambda target, token=token: table[token, target]))].append(int(token))
    return {place: sorted(members) for place, members in groups.items()}


@pytest.mark.parametrize("spread", [1.0, 0.02])
def test_visionzip_merges_into_the_most_similar_target_at_full_size(spread):
    tokens, saliency = picture(9, spread=spread), np.random.default_rng(9).random(576)
    found = {place: members for place, members in merged("visionzip", tokens, 64, saliency).items() if len(members) > 1}
    expected = {place: members for place, members in visionzip_groups(saliency, tokens, 64).items() if len(members) > 1}
    assert found == expected


def divprune(tokens, keep):
    """Max-min diversity (arXiv 2503.02175, algorithm 1)."""
    distance = 1 - cosine_table(tokens)
    np.fill_diagonal(distance, np.inf)
    chosen_ones = [int(distance.min(axis=1).argmax())]
    while len(chosen_ones) < keep:
        left = [i for i in range(len(tokens)) if i not in chosen_ones]
        chosen_ones.append(max(left, key=lambda i: distance[i, chosen_ones].min()))
    return set(chosen_ones)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_divprune_scatters_as_the_algorithm_does_at_full_size(spread):
    tokens = picture(11, spread=spread)
    assert chosen("divprune", tokens, None, keep=64) == divprune(tokens, 64)
