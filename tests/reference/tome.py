"""ToMe, slowly: bipartite soft matching (arXiv 2210.09461, section 3) in loops over plain Python lists."""

from __future__ import annotations

import math


def cosine(one, other):
    """0 where a vector is zero; fourteen digits, so that equal cosines tie."""
    lengths = math.sqrt(math.fsum(x * x for x in one) * math.fsum(y * y for y in other))
    dot = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return round(dot / lengths, 14) + 0.0 if lengths else 0.0


def mean(vectors):
    return [math.fsum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def groups(metric, keep, step=None):
    """Kept place -> the set of tokens that merged there."""
    tokens = [(place, [place]) for place in range(len(metric))]  # where it stands, what it stands for
    while len(tokens) > keep:
        surplus = len(tokens) - keep
        tokens = one_round(tokens, metric, min(surplus, step or surplus, len(tokens) // 2))
    return {place: set(members) for place, members in tokens}


def one_round(tokens, metric, merging):
    a = [token for number, token in enumerate(tokens) if number % 2 == 0]
    b = [(place, list(members)) for place, members in tokens[1::2]]
    means = [mean([metric[member] for member in members]) for _, members in b]
    edges = []
    for number, (_, members) in enumerate(a):
        own = mean([metric[member] for member in members])
        similar = [cosine(own, other) for other in means]
        partner = similar.index(max(similar))
        edges.append((-similar[partner], number, partner))
    edges.sort()
    for _, number, partner in edges[:merging]:
        b[partner][1].extend(a[number][1])
    return [a[number] for _, number, _ in edges[merging:]] + b
