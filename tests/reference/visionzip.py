"""VisionZip, slowly: arXiv 2412.04467 in loops over plain Python lists, one image at a time."""

from __future__ import annotations

import math
from fractions import Fraction


def cosine(one, other):
    """0 where a vector is zero; fourteen digits, so that equal cosines tie."""
    lengths = math.sqrt(math.fsum(x * x for x in one) * math.fsum(y * y for y in other))
    dot = math.fsum(x * y for x, y in zip(one, other, strict=True))
    return round(dot / lengths, 14) + 0.0 if lengths else 0.0


def groups(saliency, keys, dominant, contextual):
    """Kept place -> the tokens that merge into it, itself first."""
    tokens = range(len(saliency))
    by_saliency = sorted(tokens, key=lambda token: (-saliency[token], token))
    found = {token: [token] for token in by_saliency[:dominant]}
    rest = [token for token in tokens if token not in found]
    targets = []
    if contextual:
        distance = len(rest) // contextual
        targets = [rest[number * distance] for number in range(contextual)]
    found.update({target: [target] for target in targets})
    for token in rest:
        if targets and token not in targets:
            nearest = max(targets, key=lambda target: (cosine(keys[token], keys[target]), -target))
            found[nearest].append(token)
    return found


def weights(group, *, equal):
    """Token -> its weight in a merged one."""
    target, *others = group
    if equal or not others:
        return {token: Fraction(1, len(group)) for token in group}
    return {target: Fraction(1, 2), **{token: Fraction(1, 2 * len(others)) for token in others}}
