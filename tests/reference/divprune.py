"""Greedy max-min diversity (DivPrune) with lists, one image at a time."""

from __future__ import annotations

import math


def distance(left, right):
    """Cosine distance; 1 where a vector has no length."""
    norms = math.hypot(*left) * math.hypot(*right)
    return 1 - math.fsum(a * b for a, b in zip(left, right, strict=True)) / norms if norms else 1.0


def chosen(features, keep):
    """Tokens in the order they are chosen, and by how much the best of them beat the second, at least."""
    tokens, order, margin = range(len(features)), [], math.inf
    between = [[distance(f, g) for g in features] for f in features]
    for _ in range(keep):
        candidates = [token for token in tokens if token not in order]
        others = {token: order or [other for other in tokens if other != token] for token in candidates}
        nearest = {
            token: min((between[token][other] for other in others[token]), default=math.inf) for token in candidates
        }
        best, *rest = sorted(candidates, key=lambda token: (-nearest[token], token))
        margin = min([margin, *(nearest[best] - nearest[token] for token in rest[:1])])
        order.append(best)
    return order, margin
