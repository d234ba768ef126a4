"""SparseVLM in plain Python lists, written from the published description: raters, counts, and one pruning stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vectors = Sequence[Sequence[float]]


def raters(visual: Vectors, words: Vectors) -> list[int]:
    """Text tokens that get more than the mean share of the visual tokens' softmax over the text; all if none does."""
    shares = [0.0] * len(words)
    for token in visual:
        products = [sum(a * b for a, b in zip(token, word, strict=True)) for word in words]
        powers = [math.exp(product - max(products)) for product in products]
        for place, power in enumerate(powers):
            shares[place] += power / sum(powers) / len(visual)
    mean = sum(shares) / len(shares)
    # equal shares differ by rounding
    chosen = [place for place, share in enumerate(shares) if share > mean and not math.isclose(share, mean)]
    return chosen or list(range(len(words)))


def recycled(dropped: int, share: float = 0.3) -> int:
    return min(dropped, int(share * dropped) + 1)


def merged(dropped: int, share: float = 0.3, clusters: float = 0.1) -> int:
    return min(recycled(dropped, share), int(clusters * recycled(dropped, share)) + 1)


def totals(lists: Sequence[int], visual: int = 576) -> list[int]:
    """Tokens after each stage, merged ones included."""
    found = []
    for count in lists:
        visual = count + merged(visual - count)
        found.append(visual)
    return found


def split(visual: int, leaving: int, share: float = 0.3, clusters: float = 0.1) -> int:
    """How many are kept as they are, by trying all numbers from the highest; 1 where none fits."""
    for kept in range(visual, 0, -1):
        if kept + merged(visual - kept, share, clusters) == leaving:
            return kept
    return 1


def stage(
    scores: Sequence[float], hidden: Vectors, leaving: int, share: float = 0.3, clusters: float = 0.1
) -> tuple[list[int], list[tuple[int, list[int]]]]:
    """Kept tokens, ascending, and the clusters: (centre, members), in the order in which centres were found."""
    kept = split(len(scores), leaving, share, clusters)
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    again = sorted(order[kept : kept + recycled(len(scores) - kept, share)])
    count = leaving - kept
    if not count:
        return sorted(order[:kept]), []
    far = {(a, b): math.dist(hidden[a], hidden[b]) / math.sqrt(len(hidden[a])) for a in again for b in again}
    density = {}
    for a in again:
        nearest = sorted(far[a, b] for b in again)[:count]
        density[a] = math.exp(-sum(distance**2 for distance in nearest) / count)
    value = {}
    for place, a in enumerate(again):
        denser = [b for at, b in enumerate(again) if (-density[b], at) < (-density[a], place)]
        apart = min((far[a, b] for b in denser), default=max(far.values()))
        value[a] = density[a] * apart
    centres = sorted(again, key=lambda a: (-value[a], a))[:count]
    members: dict[int, list[int]] = {centre: [] for centre in centres}
    for a in again:
        nearest_centre = a if a in centres else min(centres, key=lambda centre: far[a, centre])
        members[nearest_centre].append(a)
    return sorted(order[:kept]), list(members.items())
