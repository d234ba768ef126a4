"""VisPruner, slowly: specs/visual_pruning.md 1.4 in loops over plain Python lists, one image at a time."""

from __future__ import annotations

import math


def cosine(one, other):
    """0 where a vector is zero; fourteen digits, so that equal cosines tie."""
    lengths = math.sqrt(math.fsum(x * x for x in one) * math.fsum(y * y for y in other))
    dot = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return round(dot / lengths, 14) + 0.0 if lengths else 0.0


def important_tokens(saliency, keep, share):
    by_saliency = sorted(range(len(saliency)), key=lambda token: (-saliency[token], token))
    return by_saliency[: int(keep * share)], by_saliency[int(keep * share) :]


def diverse_tokens(left, features, keep, step):
    while keep and len(left) > keep:
        evens = [token for place, token in enumerate(left) if place % 2 == 0]
        odds = [token for place, token in enumerate(left) if place % 2 == 1]
        closest = {even: max(cosine(features[even], features[odd]) for odd in odds) for even in evens}
        by_closeness = sorted(evens, key=lambda token: (-closest[token], -token))
        leaving = min(step, len(left) - keep, len(evens))
        left = by_closeness[leaving:] + odds
    return left if keep else []


def vispruner(saliency, features, keep, share=0.5, step=8):
    important, others = important_tokens(saliency, keep, share)
    return sorted(important + diverse_tokens(others, features, keep - len(important), step))
