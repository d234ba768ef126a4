"""CDPruner by its definition: every candidate's determinant at every step, one image at a time, in float64."""

from __future__ import annotations

import math

import numpy as np


def unit(vector):
    norm = math.sqrt(math.fsum(x * x for x in vector))
    return [x / norm if norm else 0.0 for x in vector]


def cosine(left, right):
    return math.fsum(a * b for a, b in zip(unit(left), unit(right), strict=True))


def likeness(features, words):
    """Mean cosine of each feature with the words; 0 where there are no words."""
    return [math.fsum(cosine(feature, word) for word in words) / max(1, len(words)) for feature in features]


def scaled(relevance):
    low, high = min(relevance), max(relevance)
    return [(value - low + 1e-6) / (high - low) if high > low else 1.0 for value in relevance]


def sharpened(relevance, theta):
    return [math.exp(theta / (2 * (1 - theta)) * value) for value in relevance]


def by_determinant(features, relevance, keep):
    """Tokens in the order they are chosen, and by how much log det K of the best choice beats the second, at least."""
    likeness = np.array([[cosine(f, g) for g in features] for f in features])
    np.fill_diagonal(likeness, 1.0)
    kernel = np.diag(relevance) @ likeness @ np.diag(relevance)
    chosen, margin = [], math.inf
    for _ in range(keep):
        values = {}
        for token in range(len(features)):
            if token not in chosen:
                subset = [*chosen, token]
                sign, value = np.linalg.slogdet(kernel[np.ix_(subset, subset)])
                values[token] = value if sign > 0 else -math.inf
        best, *others = sorted(values, key=values.get, reverse=True)
        margin = min([margin, *(values[best] - values[other] for other in others[:1])])
        chosen.append(best)
    return chosen, margin


def by_projection(features, relevance, keep):
    """The same choice with determinants of 0: a token counts with what the span of the chosen leaves of it.

    That is its relevance squared times the squared distance of its unit vector from the span, at least 1e-5.
    """
    units, chosen = np.array([unit(feature) for feature in features]), []
    for _ in range(keep):
        gains = {}
        for token, direction in enumerate(units):
            if token in chosen:
                continue
            left = direction
            if chosen:
                span = units[chosen].T
                left = direction - span @ np.linalg.lstsq(span, direction, rcond=None)[0]
            gains[token] = relevance[token] ** 2 * max(float(left @ left), 1e-5)
        most = max(gains.values())
        chosen.append(next(token for token, gain in gains.items() if gain >= most * (1 - 1e-9)))
    return chosen
